"""Every option with the comment that its file gives it: for `--help` and docs/options.md. Imports nothing heavy."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import yaml

from idd_seg.config.groups import config_dir

WIDEST = 80  # characters of a default that is shown


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

    def __init__(self, chosen: Sequence[str] = (), shared: Mapping[str, str] = MappingProxyType({})) -> None:
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
            put(result, source.options, package)
        for entry in entries(source.defaults, group, package):
            if entry.override:
                result.also.append(f"{entry.group}{_at(entry)}={plain(entry.name)}")
            else:
                self._include(result, group, entry)
        if not own_first:
            put(result, source.options, package)

    def _include(self, result: Choice, group: str, entry: Entry) -> None:
        if isinstance(entry.name, list) and entry.group not in self.chosen:
            for name in entry.name:
                self._include(result, group, replace(entry, name=name))
            return
        path = f"{entry.group}/{entry.name}"
        if str(entry.name).startswith("${"):  # by the choice of another group
            said = (
                f"the options of `{entry.group}=`, here as `{entry.package}.*`, chosen by `{plain(entry.name)[2:-1]}=`"
            )
            put(result, [Option("", plain(entry.name), said)], entry.package)
            return
        if entry.group in self.chosen and entry.group != group:
            said = f"the options of `{entry.group}=`, here as `{entry.package}.*`"
            put(result, [Option("", f"{entry.group}={plain(entry.name)}", said)], entry.package)
            return
        if entry.group != group:
            self.parts[path].add(entry.package)
        if path in self.shared:
            put(result, [Option("*", "", self.shared[path])], entry.package)
            return
        source = read(path)
        result.target = result.target or (source.target if entry.package == group else "")
        self._add(result, entry.group, source, entry.package)


def put(result: Choice, options: list[Option], package: str) -> None:
    for option in options:
        name = ".".join(part for part in (package, option.name) if part)
        meaning = option.meaning or (result.options[name].meaning if name in result.options else "")
        result.options[name] = Option(name, option.default, meaning)


def _at(entry: Entry) -> str:
    return "" if entry.package == entry.group else f"@{entry.package}"


def plain(name: Any) -> str:
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
