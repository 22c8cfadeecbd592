"""The pieces of `make gpu`: time, records, commands that end, lengths of a study, and the page's rows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from idd_seg.benchmarks.gpu import page
from idd_seg.benchmarks.gpu.bench import Bench, LeftOutError, Place
from idd_seg.benchmarks.gpu.budget import CLOSING, Budget, Share
from idd_seg.benchmarks.gpu.commands import Command, CommandError, OutOfTimeError, running
from idd_seg.benchmarks.gpu.lengths import SAFE, VALIDATIONS, Costs, lengths
from idd_seg.benchmarks.gpu.parts import PARTS, Part
from idd_seg.benchmarks.gpu.record import Record
from idd_seg.benchmarks.gpu.run import run_part, run_parts
from idd_seg.benchmarks.gpu.study import METHODS, costs_of
from idd_seg.benchmarks.gpu.suites import counts_of
from idd_seg.benchmarks.gpu.weights import digest_of
from idd_seg.config.from_python import composed

TOP = Path(__file__).parents[3]
ABOUT = {"seed": 0, "tiny": False, "machine": {"device": "cuda"}}


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, TOP / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Time.


def test_what_later_parts_need_is_kept_for_them() -> None:
    now = [100.0]
    budget = Budget(600, clock=lambda: now[0])
    share, later = Share(0.1, 0.5), [Share(0.2, 1.0), Share(0.3, 1.0)]
    assert budget.left == 600 - CLOSING
    assert budget.allowed(share, []) == 300  # its most
    assert budget.allowed(share, later) == 600 - CLOSING - 300
    now[0] += 400
    assert budget.allowed(Share(0.1, 0.9), later[:1]) == 200 - CLOSING - 120
    assert budget.allowed(share, later) is None
    now[0] += 400
    assert budget.left == 0
    assert budget.allowed(share, []) is None


def test_time_that_has_passed_before_counts() -> None:
    assert Budget(600, spent=60, clock=lambda: 0.0).left == 540 - CLOSING


def test_every_part_can_be_begun() -> None:
    assert sum(part.share.least for part in PARTS) < 0.9
    assert all(0 < part.share.least <= part.share.most <= 1 for part in PARTS)


def test_steps_that_fit() -> None:
    costs = Costs(teacher=0.05, student=0.02, validation=2.0, start=10.0)
    teacher, student = lengths(300, 3, costs) or (0, 0)
    left = SAFE * 300 - 4 * (10 + VALIDATIONS * 2)
    assert (teacher, student) == (int(0.4 * left / 0.05 // 10) * 10, int(0.6 * left / 0.06 // 10) * 10)
    spent = teacher * 0.05 + 3 * student * 0.02 + 4 * (10 + VALIDATIONS * 2)
    assert 0.8 * SAFE * 300 < spent <= SAFE * 300
    assert lengths(80, 3, costs) is None
    assert lengths(10, 3, costs) is None


def run_folder(path: Path, rates: list[float], seconds: float) -> Path:
    path.mkdir()
    lines = ["step,train/images_per_s", *(f"{i},{rate}" for i, rate in enumerate(rates)), "40,"]
    (path / "metrics.csv").write_text("\n".join(lines) + "\n")
    (path / "metrics.json").write_text(json.dumps({"seconds": seconds}))
    (path / "config.yaml").write_text("teacher:\n  batch_size: 5\ndata:\n  batch_size: 16\n")
    return path


def test_costs_by_hand(tmp_path: Path) -> None:
    teacher, student = run_folder(tmp_path / "a", [10, 160], 7.0), run_folder(tmp_path / "b", [20, 320], 5.0)
    # 40 steps of 0.1 and 0.05 s; beside them 3 s each; 20 s in all.
    assert costs_of(teacher, student, 40, 20.0) == Costs(0.1, 0.05, 3.0, 8.0)


# Records.


def test_a_record_is_on_disk_at_every_moment_without_private_folders(tmp_path: Path) -> None:
    path = tmp_path / "results" / "step.json"
    record = Record(path, ABOUT, {"/home/me/project": "."})
    assert json.loads(path.read_text())["state"] == "waiting"
    record.begin(12.34)
    record.command(["python", "-m", "x", "hydra.run.dir=/home/me/project/outputs"])
    record.note(rows=[{"what": "/home/me/project/a"}])
    found = json.loads(path.read_text())
    assert (found["part"], found["state"], found["limit_seconds"]) == ("step", "running", 12.3)
    assert found["commands"] == ["python -m x hydra.run.dir=./outputs"]
    assert found["result"] == {"rows": [{"what": "./a"}]}
    record.end("failed", "why", ["last"])
    found = json.loads(path.read_text())
    assert (found["state"], found["why"], found["last_lines"]) == ("failed", "why", ["last"])
    assert found["seconds"] >= 0
    assert [p.name for p in path.parent.iterdir()] == ["step.json"]


ENDS: list[tuple[BaseException | None, str, str | None]] = [
    (None, "finished", None),
    (CommandError("exit code 1", ["line"]), "failed", "exit code 1"),
    (OutOfTimeError("ended"), "out of time", "ended"),
    (LeftOutError("no data"), "left out", "no data"),
    (KeyError("rows"), "failed", "KeyError: 'rows'"),
    (SystemExit(143), "stopped", "stopped by a signal"),
]


@pytest.mark.parametrize(("error", "state", "why"), ENDS, ids=[state for _, state, _ in ENDS])
def test_every_end_of_a_part_is_recorded(
    error: BaseException | None, state: str, why: str | None, tmp_path: Path
) -> None:
    def do(bench: Bench) -> None:
        bench.record.note(first=1)
        if error is not None:
            raise error

    record = Record(tmp_path / "x.json", ABOUT)
    bench = Bench(Place(TOP, tmp_path, "cpu", True), record, 10)
    if state == "stopped":
        with pytest.raises(SystemExit):
            run_part(Part("x", Share(0, 1), do), bench)
    else:
        run_part(Part("x", Share(0, 1), do), bench)
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["state"], found["why"], found["result"]) == (state, why, {"first": 1})


# Commands.

# Ignores SIGTERM, and starts a process in a session of its own, which ignores it too.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, sys.argv[0], "child"], start_new_session=True)
    print(child.pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_command_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    command = Command([sys.executable, "stubborn.py"], tmp_path, tmp_path / "log", {})
    until = time.monotonic() + 30
    while not (text := (tmp_path / "log").read_text()).endswith("\n") and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)  # for the child to say that it ignores the signal
    assert is_running(int(text))
    command.end(grace=0.2)
    assert command.process.returncode == -9
    assert not is_running(int(text))


def test_a_command_out_of_time_leaves_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idd_seg.benchmarks.gpu.commands.GRACE", 0.0)
    code = "import time; print('so far', flush=True); time.sleep(60)"
    with running([sys.executable, "-c", code], tmp_path, tmp_path / "log", {}) as command:
        until = time.monotonic() + 30
        while not (tmp_path / "log").read_text() and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(OutOfTimeError) as caught:
            command.wait(0.1)
    assert caught.value.lines == ["so far"]


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    bench = Bench(Place(tmp_path, tmp_path, "cpu", True), Record(tmp_path / "x.json", ABOUT), 60)
    with pytest.raises(CommandError, match="exit code") as caught:
        bench.run("no_module_of_this_name")
    assert "No module named" in caught.value.lines[-1]
    assert bench.record.content["commands"] == ["python -m no_module_of_this_name"]


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        ("..\n=== 2 passed, 1 skipped in 5.20s ===\n", {"passed": 2, "skipped": 1}),
        ("FAILED x\n1 failed, 2 passed, 77 deselected, 1 error in 0.11s\n", {"failed": 1, "passed": 2, "error": 1}),
        ("Segmentation fault\n", {}),
    ],
)
def test_numbers_of_tests(output: str, counts: dict[str, int]) -> None:
    assert counts_of(output) == counts


def test_a_digest_knows_every_bit_of_the_student_and_no_other() -> None:
    state = {"student.a": torch.zeros(3), "student.b": torch.ones(2, dtype=torch.bfloat16), "terms.x": torch.ones(1)}
    first = digest_of({"state_dict": state})
    assert digest_of({"state_dict": {**state, "terms.x": torch.zeros(1)}}) == first
    assert digest_of({"state_dict": {**state, "student.a": -torch.zeros(3)}}) != first
    assert digest_of({"state_dict": {**state, "student.a": torch.zeros(3, 1)}}) != first
    with pytest.raises(ValueError, match="no tensors"):
        digest_of({"state_dict": {"terms.x": torch.ones(1)}})


# The study, and the wheels.


def test_the_study_is_about_the_default_loss() -> None:
    methods = yaml.safe_load((TOP / "conf" / "study" / "methods" / "full.yaml").read_text())["methods"]
    assert tuple(methods) == METHODS
    with composed(["data=camvid"]) as cfg:
        terms = [name for name, node in cfg.loss.items() if not str(name).endswith("_weight")]
        assert methods["default"]["weights"] == {name: cfg.loss[f"{name}_weight"] for name in terms}


def test_what_is_looked_for_is_what_the_program_needs() -> None:
    wheels = script("install_wheels")
    text = (TOP / "pyproject.toml").read_text()
    needed = text.split("\ndependencies = [", 1)[1].split("\n]", 1)[0].splitlines()[1:]
    names = {line.strip().split('"')[1].split(">")[0].split("=")[0].strip() for line in needed}
    assert {name.replace("_", "-") for name in names} - {"wandb"} <= set(wheels.MODULES.values())


def test_wheels_of_what_is_there_are_left_out() -> None:
    wheels = script("install_wheels")
    files = [Path("hydra_core-1.3.2-py3-none-any.whl"), Path("torch-9.0-py3-none-any.whl"), Path("PyYAML-6-x.whl")]
    assert wheels.chosen(files, ["hydra-core", "pyyaml"]) == [files[2], files[0]]
    assert wheels.missing(Path("nowhere")) == []


# The page.


def measured(**changes: Any) -> dict[str, Any]:
    machine = {
        "device": "cuda",
        "gpu": "NVIDIA H0",
        "driver": "1.2",
        "versions": {"torch": "9.9"},
        "git": {"commit": "0123456789", "changed": False},
    }
    return {
        "state": "finished",
        "why": None,
        "begun": "2026-01-02T03:04:05",
        "tiny": False,
        "machine": machine,
        **changes,
    }


def step_result() -> dict[str, Any]:
    def way(seconds: float, memory: float) -> dict[str, Any]:
        parts = {"teacher": 0.2, "student": 0.15, "terms": 0.03, "rest": 0.02}
        own = {"parts": parts, "bare_parts": {**parts, "terms": 0.01}}
        return {"seconds": {"median": seconds}, "peak_memory": memory, **own}

    ways = {"float32, as written": way(0.4, 10e9), "fast": way(0.1, 5e9)}
    return {"sizes": [{"size": [512, 512], "batch": 16, "flops": 40e12, "rates": {"bfloat16": 800e12}, "ways": ways}]}


def test_rows_by_hand() -> None:
    hashes = {"sha256": ["ab12cd34ef", "ab12cd34ef"], "same": True}
    found = {
        "step": measured(result=step_result()),
        "losses": measured(result={"rows": [{"reached": True}, {"reached": False}, {"reached": None}]}),
        "determinism": measured(result={"float32": hashes}, state="failed", why="x"),
        "tests": measured(result={"passed": 60, "skipped": 3}),
        "study": measured(result={}, state="left out", why="IDD_SEG_CAMVID names no folder with CamVid"),
    }
    text = "\n".join(page.table(found))
    assert "NVIDIA H0, driver 1.2, torch 9.9; commit 0123456; 2026-01-02: `step`, `losses`" in text
    assert "in a distillation step, 16 x 512 x 512, float32, as written | 10.0 %: 40 of 400 ms |  |" in text
    assert "| 4.00 x: 100 against 400 ms | >= 3 x |" in text
    assert "| 50 %: 400 of 800 T/s | >= 40 % |" in text
    assert "| 0.50 x: 5.0 GB | <= 0.55 x |" in text
    assert "| 1 of 2 bars reached | all |" in text
    assert "| 60 passed, 3 skipped | none fails |" in text
    assert "`deterministic=true`, float32 | the same weights (SHA-256 ab12cd34) |" in text
    assert "`deterministic=true`, fast | unmeasured (failed) |" in text
    assert "goes on | unmeasured | the same weights |" in text
    assert "mIoU, seed 0 | unmeasured (left out: IDD_SEG_CAMVID names no folder with CamVid) |" in text


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    (tmp_path / "step.json").write_text(json.dumps(measured(result=step_result(), tiny=True)))
    rows = [line for line in page.table(page.read_results(tmp_path)) if line.startswith("| ")][2:]
    assert len(rows) == 10
    assert all(row.split(" | ")[1] == "unmeasured" for row in rows)


def test_the_page_is_as_it_would_be_written_now() -> None:
    text = (TOP / "docs" / "performance.md").read_text(encoding="utf-8")
    assert script("write_performance").page(text) == text, "run python scripts/write_performance.py"


def test_the_page_without_its_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="lacks the marks"):
        script("write_performance").page("# Speed\n")


def test_the_parts_of_a_bad_command_line_are_named() -> None:
    words = [sys.executable, "-m", "idd_seg.benchmarks.gpu", "--limit", "5"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--limit must be at least 60 seconds, got 5" in done.stderr


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    """A part is called `data`, and the folder of runs may be one that has such a folder already."""
    for part in PARTS:
        (tmp_path / part.name).mkdir()
    options = {"device": "cpu", "tiny": True, "seed": 0, "parts": [], "work": tmp_path, "results": tmp_path / "results"}
    old = Place(TOP, tmp_path, "cpu", True).folder("data") / "of an earlier run"
    old.mkdir(parents=True)
    assert run_parts(SimpleNamespace(**options), Budget(60)) == 0
    assert all((tmp_path / part.name).is_dir() for part in PARTS)
    assert not old.exists()
