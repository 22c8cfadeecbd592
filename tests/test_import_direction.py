"""Imports point down: the folders of the package are its layers, in one order, which docs/architecture.md shows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import idd_seg

ROOT = Path(idd_seg.__file__).parent
PAGE = ROOT.parents[1] / "docs" / "architecture.md"
# From the ground up. Whatever stands on one line knows nothing of its neighbours; a file of the package's root stands
# where its name says, entry points at the top.
LAYERS = (
    ("errors", "types", "ops"),
    ("distributed",),
    ("losses", "models", "data", "metrics"),
    ("checkpoints", "plotting", "runtimes"),
    ("loggers", "distillation", "evaluation"),
    ("callbacks",),
    ("config",),
    ("runs", "library"),
    ("api", "dataset_check", "exporting", "prediction", "reporting", "sweeps"),
    ("studies", "benchmarks"),
)
CONFIG = next(number for number, layer in enumerate(LAYERS) if "config" in layer)
LEVELS = {name: number for number, layer in enumerate(LAYERS) for name in layer}
HEAVY = {"torch", "lightning", "timm", "torchmetrics", "albumentations", "cv2", "matplotlib", "wandb"}
TRAINING = {"lightning", "torchmetrics"}

FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
ENTRY_POINTS = sorted(
    name for name, path in FILES.items() if "." not in name and "if __name__" in path.read_text(encoding="utf-8")
)


def imports(path: Path, *, everywhere: bool = True) -> Iterator[str]:
    """Yield the dotted names that a file imports; those inside of functions only if asked for `everywhere`."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(ast.iter_child_nodes(node))


def packages(path: Path, *, everywhere: bool = True) -> set[str]:
    return {name.split(".")[0] for name in imports(path, everywhere=everywhere)}


def files_of(path: Path) -> set[str]:
    """Return the files of this program that a file imports: `losses.idd` for `idd_seg.losses.idd.idd`."""
    found = set()
    for name in imports(path):
        parts = name.split(".")[1:] if name.startswith("idd_seg.") else []
        while parts and ".".join(parts) not in FILES:
            parts.pop()
        found.add(".".join(parts))
    return found - {""}


def part(name: str) -> str:
    return name.split(".")[0]


def level(name: str) -> int:
    """Return the layer of a file; entry points stand above all."""
    return len(LAYERS) if name in ENTRY_POINTS else LEVELS[part(name)]


def test_every_folder_and_file_has_its_layer() -> None:
    assert {part(name) for name in FILES} - {"__init__"} == {*LEVELS, *ENTRY_POINTS}
    assert {"train", "evaluate"} <= set(ENTRY_POINTS)


def test_the_root_holds_entry_points_and_little_else() -> None:
    assert len([name for name in FILES if "." not in name]) <= 15


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__"])
def test_imports_point_down(name: str) -> None:
    for other in files_of(FILES[name]):
        assert part(other) == part(name) or level(other) < level(name), f"{name} imports {other}"


def test_the_package_itself_imports_nothing_before_it_is_asked() -> None:
    # When it is called: `load`, `from_pretrained`, `train` and `distil`, and the types they return.
    assert files_of(FILES["__init__"]) == {
        "library",
        "exporting.hub",
        "api.trained",
        "api.training",
        "api.distillation",
    }
    code = "import sys, idd_seg; print([name for name in sys.modules if name.startswith('idd_seg.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_no_files_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for other in files_of(FILES[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in FILES:
        visit(name, ())


@pytest.mark.parametrize("name", [n for n in FILES if n != "__init__" and level(n) < CONFIG])
def test_nothing_below_reads_the_configuration(name: str) -> None:
    assert not packages(FILES[name]) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("losses.") and n.count(".") == 1])
def test_no_term_imports_another(name: str) -> None:
    shared = {"losses.term", "losses.schedule"}
    assert not {o for o in files_of(FILES[name]) if o.startswith("losses.") and o.count(".") == 1} - shared


def test_the_page_shows_the_same_list() -> None:
    block = re.search(r"```layers\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert block is not None
    rows = [row.split("  ")[0].split() for row in block[1].splitlines() if row]
    assert [set(row) for row in rows] == [set(layer) for layer in reversed(LAYERS)]


@pytest.mark.parametrize("name", ["config.command_line", *ENTRY_POINTS])
def test_the_command_line_imports_nothing_heavy(name: str) -> None:
    assert not packages(FILES[name], everywhere=False) & HEAVY


@pytest.mark.parametrize(
    ("names", "heavy"),
    [
        pytest.param([*ENTRY_POINTS], HEAVY, id="help"),
        pytest.param([f"reporting.{name}" for name in ("content", "tables")], HEAVY - {"cv2"}, id="report"),
        # What a program that only shows pictures to a network waits for before its first one.
        pytest.param(
            ["library", "prediction.folder", "prediction.results", "prediction.label_all", "prediction.labeller"],
            TRAINING,
            id="predict and label",
        ),
    ],
)
def test_a_start_waits_for_nothing_that_it_does_not_need(names: list[str], heavy: set[str]) -> None:
    code = f"import sys, {', '.join(f'idd_seg.{name}' for name in names)}; print(*sys.modules.keys() & {heavy!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
