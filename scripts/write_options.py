"""Write docs/options.md, the list of every option, from the comments of conf/: `python scripts/write_options.py`."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from idd_seg.config.groups import chosen_groups, config_dir, options_of
from idd_seg.config.option_comments import Choice, Option, Reader, entries, plain, put, read

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
MAIN = "train"
TEMPLATES = "help"  # of Hydra's groups the one that holds texts, not options
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
- `--help` shows a screen, `--help=all` every option of the choices that the command line makes, with its comment.
- `--help=loss` shows a group's choices and options, `--help=data.augment` a part; `--cfg job` shows the values.
"""


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
        entry.group: plain(entry.name)
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
    put(one, read(config_name).options, "")
    return options_table([one])


def main_section() -> list[str]:
    chosen = chosen_groups(MAIN)
    groups = [group for group in [*chosen, *hydra_groups()] if options_of(group)]
    first = Reader([*chosen, *hydra_groups()])
    for group in groups:
        for name in options_of(group):
            first.choice(group.split("@")[0], name)
    places = [path for path, packages in first.parts.items() if len(packages) > MANY]
    shared = {path: f"[see below](#{anchor(_pattern_title(path))})" for path in places}
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
