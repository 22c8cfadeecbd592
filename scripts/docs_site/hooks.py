"""What MkDocs can't know: pages that lie outside of docs/, the reference of the packages, and formulas."""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from maths import in_mathml

TOP = Path(__file__).parents[2]
SOURCE = TOP / "src" / "idd_seg"
# Pages of the repository's top, and what they are called on the site.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
NOT_SHOWN = ("benchmarks", "conf")  # of the package: commands alone, and what stands in options.md


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference's pages into the navigation."""
    last = config.nav[-1]  # type: ignore[index]
    last["Reference"] += [{f"idd_seg{'.' * bool(name)}{name}": page_of(name)} for name in packages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds, and the files that pages name outside of it."""
    for name, place in PAGES.items():
        files.append(File.generated(config, place, content=(TOP / name).read_text(encoding="utf-8")))
    for name in packages():
        files.append(File.generated(config, page_of(name), content="\n".join(reference(name))))
    for path in outside():
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(TOP / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links lead where their files are on the site; a code host shows the same pages where they lie."""
    before = {place: name for name, place in PAGES.items()}
    source = before.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return "".join(
        _relinked(part, source, page.file.src_uri) for part in re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)
    )


def on_page_content(html: str, **_: object) -> str:
    """Show formulas."""
    return in_mathml(html)


def _relinked(text: str, source: str, own: str) -> str:
    if text.startswith("```"):
        return text

    def link(found: re.Match[str]) -> str:
        target = found[2]
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}")
        return f"{found[1]}{posixpath.relpath(place, posixpath.dirname(own) or '.')}{found[3] or ''}{found[4]}"

    return LINK.sub(link, text)


def outside() -> Iterator[str]:
    """Yield the files beside docs/ that its pages link to."""
    for page in sorted((TOP / "docs").rglob("*.md")):
        for found in LINK.finditer(page.read_text(encoding="utf-8")):
            if not found[2].startswith("../"):
                continue
            path = (page.parent / found[2]).resolve()
            name = path.relative_to(TOP).as_posix()
            if path.is_file() and not name.startswith("docs/") and name not in PAGES:
                yield name


def packages() -> list[str]:
    """Return the package's folders that the reference shows; `` is its root."""
    found = sorted(path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file())
    return ["", *(name for name in found if name not in NOT_SHOWN)]


def page_of(package: str) -> str:
    return f"reference/{package or 'idd_seg'}.md"


def reference(package: str) -> Iterator[str]:
    """Yield the lines of a page: what it is, and one entry for each module that has something to show."""
    folder = SOURCE / package
    dotted = f"idd_seg.{package}" if package else "idd_seg"
    yield f"# {dotted}\n"
    yield f"{ast.get_docstring(ast.parse((folder / '__init__.py').read_text(encoding='utf-8'))) or ''}\n"
    for path in sorted(folder.rglob("*.py") if package else [folder / "__init__.py", *folder.glob("[!_]*.py")]):
        inner = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(("idd_seg", *(part for part in inner if part != "__init__")))
        if _has_something(path):
            yield f"::: {name}\n"


def _has_something(path: Path) -> bool:
    public = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    return any(ast.get_docstring(node) for node in public)
