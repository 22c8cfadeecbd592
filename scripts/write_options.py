"""Write docs/options.md, the list of every option, from the comments of conf/: `python scripts/write_options.py`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from idd_seg.config.groups import chosen_groups, config_dir, options_of

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
MAIN = "train"
TEMPLATES = "help"  # of Hydra's groups the one that holds texts, not options
WIDEST = 80  # characters of a default that is shown
MANY = 3  # a part that stands in more places than this has a table of its own
INTRO = """# Options

This page lists every option with its default.
`python scripts/write_options.py` writes it from the comments of `conf/`, and a test compares the two.
`python -m idd_seg.report` takes plain arguments: [report.md](report.md).

- `option=value` on the command line sets an option, `group=choice` makes a choice.
- Of `loss`, `experiment` and `hparams` several may be chosen: `loss=[ce,kd]`.
- `+option=value` adds an option that is not listed, where a group passes further ones on.
- `${other}` as a default takes the value of another option; `???` has no default.
- A row without a name under "of" holds for every choice of its group.
- `--help` shows the options of the choices that the command line makes, `--cfg job` shows their values.
"""


@dataclass(frozen=True)
class Option:
    name: str
    default: str
    meaning: str = ""


@dataclass(frozen=True)
class Entry:
    """One entry of a `defaults` list: a file, the package that it goes to, and whether it only changes a choice."""

    group: str
    name: Any
    package: str
    override: bool = False


@dataclass
class Source:
    """What one YAML file says by itself."""

    header: str
    is_global: bool
    target: str
    defaults: list[Any]
    options: list[Option]


@dataclass
class Choice:
    name: str
    header: str
    target: str
    also: list[str] = field(default_factory=list)
    options: dict[str, Option] = field(default_factory=dict)


class Reader:
    """Reads groups of conf/; `parts` counts where files go that are no choices of the command line."""

    def __init__(self, chosen: list[str], shared: frozenset[str] = frozenset()) -> None:
        self.chosen = {name.split("@")[0] for name in chosen}
        self.shared = shared
        self.parts: dict[str, set[str]] = defaultdict(set)

    def choice(self, group: str, name: str) -> Choice:
        source = read(f"{group}/{name}")
        result = Choice(name, source.header, source.target)
        self._add(result, group, source, "" if source.is_global else group.replace("/", "."))
        if source.is_global:
            result.options = {}  # values of other groups' options
        return result

    def part(self, path: str, package: str) -> Choice:
        source = read(path)
        result = Choice(path, source.header, source.target)
        self._add(result, path.rpartition("/")[0], source, package)
        return result

    def _add(self, result: Choice, group: str, source: Source, package: str) -> None:
        own_first = source.defaults[:1] == ["_self_"]
        if own_first:
            _put(result, source.options, package)
        for entry in entries(source.defaults, group, package):
            if entry.override:
                result.also.append(f"{entry.group}{_at(entry)}={_plain(entry.name)}")
            else:
                self._include(result, group, entry)
        if not own_first:
            _put(result, source.options, package)

    def _include(self, result: Choice, group: str, entry: Entry) -> None:
        path = f"{entry.group}/{entry.name}"
        if entry.group in self.chosen and entry.group != group:
            said = f"the options of `{entry.group}=`, here as `{entry.package}.*`"
            _put(result, [Option("", f"{entry.group}={_plain(entry.name)}", said)], entry.package)
            return
        if entry.group != group:
            self.parts[path].add(entry.package)
        if path in self.shared:
            _put(result, [Option("*", "", f"[see below](#{anchor(_pattern_title(path))})")], entry.package)
            return
        source = read(path)
        result.target = result.target or (source.target if entry.package == group else "")
        self._add(result, entry.group, source, entry.package)


def _put(result: Choice, options: list[Option], package: str) -> None:
    for option in options:
        name = ".".join(part for part in (package, option.name) if part)
        meaning = option.meaning or (result.options[name].meaning if name in result.options else "")
        result.options[name] = Option(name, option.default, meaning)


def _at(entry: Entry) -> str:
    return "" if entry.package == entry.group else f"@{entry.package}"


def _plain(name: Any) -> str:
    return f"[{','.join(map(str, name))}]" if isinstance(name, list) else str(name)


def entries(defaults: list[Any], group: str, package: str) -> Iterator[Entry]:
    """Yield what a `defaults` list names, other than the file itself."""
    for item in defaults:
        if item == "_self_":
            continue
        key, name = (item, None) if isinstance(item, str) else next(iter(item.items()))
        *words, last = key.split()
        path, _, where = last.partition("@")
        inner = path.removeprefix("/") if path.startswith("/") or not group else f"{group}/{path}"
        if isinstance(item, str):
            inner, _, name = inner.rpartition("/")
        if not inner.startswith("hydra/") or group.startswith("hydra"):
            yield Entry(inner, name, _package(where, inner, group, package), "override" in words)


def _package(where: str, inner: str, group: str, package: str) -> str:
    if where == "_here_" or (not where and inner == group):
        return package
    if where.startswith("_global_"):
        return where.removeprefix("_global_").lstrip(".")
    if not where:
        return inner.replace("/", ".")
    return ".".join(part for part in (package, where) if part)


def read(path: str) -> Source:
    """Read a file of conf/ with the comments of its options."""
    text = (config_dir() / f"{path}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    top = lines[: next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    said = [line.lstrip("# ") for line in top if not line.startswith("# @package")]
    node = yaml.compose(text)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    values = yaml.safe_load(text) or {}
    listed = [pair for pair in pairs if pair[0].value not in ("defaults", "hydra")]
    options = [one for key, value in listed for one in _options(key, value, lines, len(top))]
    return Source(
        header=" ".join(said),
        is_global=len(said) < len(top),
        target=str(values.get("_target_", "")) or _only_target(values),
        defaults=values.get("defaults", []),
        options=options,
    )


def _only_target(values: dict[str, Any]) -> str:
    """Return the class of a file that has one, a level down: a term's."""
    inner = [value["_target_"] for value in values.values() if isinstance(value, dict) and "_target_" in value]
    return str(inner[0]) if len(inner) == 1 else ""


def _options(key: yaml.Node, value: yaml.Node, lines: list[str], top: int, prefix: str = "") -> Iterator[Option]:
    if re.fullmatch(r"_\w+_", str(key.value)):
        return
    name = f"{prefix}{key.value}"
    meaning = _comment(key, value, lines, top)
    inner = value.value if isinstance(value, yaml.MappingNode) else []
    if inner and all(re.fullmatch(r"[A-Za-z_]\w*", str(one.value)) for one, _ in inner):
        if meaning:
            yield Option(name, "", meaning)
        for one, child in inner:
            yield from _options(one, child, lines, top, f"{name}.")
    else:
        yield Option(name, _default(value, lines), meaning)


def _comment(key: yaml.Node, value: yaml.Node, lines: list[str], top: int) -> str:
    """Return the comment lines right above an option and the comment behind it."""
    row = key.start_mark.line
    above: list[str] = []
    while row > top and lines[row - 1].strip().startswith("#"):
        row -= 1
        above.insert(0, lines[row].strip().lstrip("# "))
    is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
    mark = key.end_mark if is_block else value.end_mark
    behind = re.search(r"(?:^|\s)#\s*(.*)", lines[mark.line][mark.column :]) if mark.line < len(lines) else None
    return " ".join([*above, *([behind[1].strip()] if behind else [])])


def _default(value: yaml.Node, lines: list[str]) -> str:
    if isinstance(value, yaml.CollectionNode) and not value.flow_style:
        return f"({len(value.value)} entries)"
    start, end = value.start_mark, value.end_mark
    text = lines[start.line][start.column : end.column] if start.line == end.line else "\n"
    if "\n" in text or len(text) > WIDEST:
        return f"({len(value.value)} entries)" if isinstance(value, yaml.CollectionNode) else "(a text)"
    return text


def anchor(title: str) -> str:
    """Return the anchor that a heading gets on the page."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _pattern_title(path: str) -> str:
    return f"Shared: `{path}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text and not text.startswith("(") else text


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def choices_table(choices: list[Choice]) -> list[str]:
    rows = [_row("choice", "what", "builds"), _row("---", "---", "---")]
    for one in choices:
        also = f" Also chooses {', '.join(f'`{x}`' for x in one.also)}." if one.also else ""
        rows.append(_row(f"`{one.name}`", _cell(one.header) + also, _code(one.target)))
    return rows


def options_table(choices: list[Choice]) -> list[str]:
    """Return a row for each option, or several where its default or its meaning differ between the choices."""
    having: dict[str, dict[Option, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in choices:
        for name, option in one.options.items():
            having[name][option].append(one.name)
    rows = [_row("option", "default", "of", "meaning"), _row("---", "---", "---", "---")]
    firsts = list(dict.fromkeys(_prefix(name) for name in having))
    for name in sorted(having, key=lambda name: firsts.index(_prefix(name))):
        for option, names in having[name].items():
            rows.append(_row(f"`{name}`", _code(option.default), _of(names, choices), _cell(option.meaning)))
    return rows if len(rows) > 2 else []


def _prefix(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _of(names: list[str], choices: list[Choice]) -> str:
    """Name the choices that a row holds for, or those that it does not hold for, whichever are fewer."""
    rest = [one.name for one in choices if one.name not in names]
    few = rest if len(rest) < len(names) else names
    listed = ", ".join(f"`{x}`" for x in few)
    return f"all but {listed}" if rest and few is rest else listed if rest else ""


def _group_defaults(config_name: str) -> dict[str, str]:
    return {
        entry.group: _plain(entry.name)
        for entry in entries(read(config_name).defaults, "", "")
        if entry.name is not None and entry.group
    }


def group_section(reader: Reader, group: str, default: str) -> list[str]:
    """Return the section of a group: its choices, and the options that each brings."""
    plain, _, package = group.partition("@")
    choices = [reader.choice(plain, name) for name in options_of(group)]
    if package:
        for one in choices:
            one.options = {re.sub(rf"^{plain}\b", package, name): x for name, x in one.options.items()}
    said = [f"By default `{default}`.", ""] if default and default != "None" else []
    table = options_table(choices)
    return [f"### `{group}=`", "", *said, *choices_table(choices), "", *table, *([""] if table else [])]


def shared_section(path: str, packages: set[str]) -> list[str]:
    pattern = "*".join(_ends(sorted(packages)))
    part = Reader([]).part(path, pattern)
    return [f"### {_pattern_title(path)}", "", part.header, "", *options_table([part]), ""]


def _ends(names: list[str]) -> tuple[str, str]:
    """Return what all dotted names begin and end with."""
    split = [name.split(".") for name in names]
    same = [len(set(parts)) == 1 for parts in zip(*split, strict=False)]
    first = next((i for i, is_same in enumerate(same) if not is_same), 0)
    return ".".join([*split[0][:first], ""]), ".".join(["", *split[0][first + 1 :]])


def hydra_groups() -> list[str]:
    folders = [p.parent for p in (config_dir() / "hydra").rglob("*.yaml")]
    names = dict.fromkeys(str(p.relative_to(config_dir())).replace("\\", "/") for p in sorted(folders))
    return [name for name in names if not name.endswith(f"/{TEMPLATES}")]


def own_table(config_name: str) -> list[str]:
    one = Choice(config_name, "", "")
    _put(one, read(config_name).options, "")
    return options_table([one])


def main_section() -> list[str]:
    chosen = chosen_groups(MAIN)
    groups = [group for group in [*chosen, *hydra_groups()] if options_of(group)]
    first = Reader([*chosen, *hydra_groups()])
    for group in groups:
        for name in options_of(group):
            first.choice(group.split("@")[0], name)
    shared = frozenset(path for path, packages in first.parts.items() if len(packages) > MANY)
    reader = Reader([*chosen, *hydra_groups()], shared)
    defaults = _group_defaults(MAIN)
    found = [f"## `python -m idd_seg.{MAIN}`", "", *own_table(MAIN), ""]
    for group in groups:
        found += group_section(reader, group, defaults.get(group, ""))
    for path in sorted(shared):
        found += shared_section(path, first.parts[path])
    return found


def other_section(config_name: str) -> list[str]:
    """Return the section of another entry point: its own options, and the groups that training has not."""
    standing = MAIN in read(config_name).defaults
    found = [f"## `python -m idd_seg.{config_name}`", "", read(config_name).header, ""]
    if standing:
        changed = [f"`{k}={v}`" for k, v in _group_defaults(config_name).items() if k in chosen_groups(MAIN)]
        found += [f"Takes the options of `{MAIN}` and those below." + (" Other defaults:" if changed else ""), ""]
        found += [*(f"- {one}" for one in changed), *([""] if changed else [])]
    found += [*own_table(config_name), ""]
    for group in chosen_groups(config_name):
        if group not in chosen_groups(MAIN):
            reader = Reader([])
            choices = [reader.choice(group, name) for name in options_of(group)]
            found += [f"### `{group}=`", "", *choices_table(choices), "", *_short(choices), ""]
    return found


def _short(choices: list[Choice]) -> list[str]:
    """Return a row for each option of the first level, whatever its default."""
    names = [_prefix(name) for one in choices for name in one.options]
    said: dict[str, str] = {}
    for one in choices:
        for name, option in one.options.items():
            said[name] = said.get(name) or option.meaning
    rows = [_row(f"`{name}`", _cell(said.get(name, ""))) for name in dict.fromkeys(names)]
    return [_row("option", "meaning"), _row("---", "---"), *rows]


def page() -> str:
    """Return the whole page."""
    others = sorted(p.stem for p in config_dir().glob("*.yaml") if p.stem != MAIN)
    lines = [*main_section(), *(line for name in others for line in other_section(name))]
    return re.sub(r"\n{3,}", "\n\n", "\n".join([INTRO, *lines]).rstrip() + "\n")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
