"""docs/templates/: each, put into a scratch copy of the project, trains and passes its own and the shared tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import TINY

TOP = Path(__file__).parents[1]
TEMPLATES = TOP / "docs" / "templates"
# Where a file of a template belongs, by its kind.
PLACES = {
    "term": ("src/idd_seg/losses", "conf/loss", "tests/losses"),
    "callback": ("src/idd_seg/callbacks", "conf/callbacks", "tests/callbacks"),
}
CHOSEN = {"term": "loss=[ce,kd,my_term]", "callback": "callbacks=my_callback"}
LOGGED = {
    "term": ("train/my_term", "train/my_term_weighted", "val/my_term_cosine"),
    "callback": ("train/student_norm",),
}


def install(kind: str, copy: Path) -> None:
    """Put the files of a template where they belong; no other file is edited."""
    code, conf, tests = PLACES[kind]
    for file in (TEMPLATES / kind).iterdir():
        folder = conf if file.suffix == ".yaml" else tests if file.name.startswith("test_") else code
        shutil.copy(file, copy / folder / file.name)


@pytest.fixture(scope="module", params=sorted(PLACES))
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    copy = tmp_path_factory.mktemp(request.param)
    for name in ("src", "conf", "tests"):
        shutil.copytree(TOP / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(TOP / "pyproject.toml", copy)
    install(request.param, copy)
    return request.param, copy


def python(copy: Path, *arguments: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(copy / "src"), "IDD_SEG_CACHE": str(copy / "cache")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_there_is_a_place_for_every_template() -> None:
    assert {path.name for path in TEMPLATES.iterdir()} == set(PLACES)


@pytest.mark.slow
def test_it_trains(installed: tuple[str, Path]) -> None:
    kind, copy = installed
    options = [option for option in TINY if not option.startswith("trainer.max_steps")]
    python(copy, "-m", "idd_seg.train", CHOSEN[kind], *options, "trainer.max_steps=2", "hydra.run.dir=run")
    header = (copy / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert set(LOGGED[kind]) <= set(header)


def test_its_own_tests_and_the_shared_ones_pass(installed: tuple[str, Path]) -> None:
    kind, copy = installed
    shared = ("config/test_composition.py", "config/test_option_types.py", "test_import_direction.py")
    files = [*(copy / PLACES[kind][2]).glob("test_my_*.py"), *(f"tests/{name}" for name in shared)]
    assert "passed" in python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files), "-k", "my_")


def test_a_term_is_measured_without_being_entered_anywhere(installed: tuple[str, Path]) -> None:
    kind, copy = installed
    if kind == "term":
        assert "my_term_weight" in python(copy, "-m", "idd_seg.benchmark", "losses", "--cfg", "job")
