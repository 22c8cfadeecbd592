"""Imports point down: types <- losses, models, data, metrics <- module, callbacks <- build <- entry points."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import idd_seg

ROOT = Path(idd_seg.__file__).parent
SIBLINGS = {"losses", "models", "data", "metrics"}
GROUND = {"types", "errors", "bands", "casting", "ranks"}
# Reads the configuration, beside the entry points.
READS_CONFIG = {
    "benchmarks",
    "build",
    "checks",
    "cli",
    "job",
    "limits",
    "occupancy",
    "option_types",
    "run_folder",
    "supervisor",
    "sweeps",
    "teachers",
    "training",
}
HEAVY = {"torch", "lightning", "timm", "torchmetrics", "albumentations", "cv2", "matplotlib", "wandb"}

FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
ENTRY_POINTS = sorted(name for name, path in FILES.items() if "if __name__" in path.read_text(encoding="utf-8"))


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


def ours(path: Path) -> set[str]:
    """Return the parts of this program that a file imports: `losses` for `idd_seg.losses.idd`."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("idd_seg.")}


def part(name: str) -> str:
    return name.split(".")[0]


def test_the_files_are_found() -> None:
    assert set(FILES) >= {"types", "errors", "metrics", "losses.term", "models.segmenter", "data.base", "module", "cli"}
    assert {"train", "evaluate"} <= set(ENTRY_POINTS)


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_stands_on_nothing(name: str) -> None:
    assert ours(FILES[name]) <= GROUND


@pytest.mark.parametrize("name", [name for name in FILES if part(name) in SIBLINGS])
def test_siblings_do_not_know_each_other_nor_what_is_above(name: str) -> None:
    assert ours(FILES[name]) <= GROUND | {part(name)}


@pytest.mark.parametrize("name", [name for name in FILES if part(name) in {"module", "callbacks"}])
def test_module_and_callbacks_do_not_know_how_they_are_built(name: str) -> None:
    assert not ours(FILES[name]) & (READS_CONFIG | {part(entry) for entry in ENTRY_POINTS})


@pytest.mark.parametrize("name", [n for n in FILES if part(n) not in READS_CONFIG and n not in ENTRY_POINTS])
def test_nothing_else_reads_the_configuration(name: str) -> None:
    assert not packages(FILES[name]) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("name", ["cli", *ENTRY_POINTS])
def test_the_command_line_imports_nothing_heavy(name: str) -> None:
    assert not packages(FILES[name], everywhere=False) & HEAVY


def test_help_need_not_wait_for_pytorch() -> None:
    names = ", ".join(f"idd_seg.{name}" for name in ENTRY_POINTS)
    code = f"import sys, {names}; print(*sys.modules.keys() & {HEAVY!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
