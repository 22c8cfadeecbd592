"""The course of a study, with runs that take no time: what is searched, in which order, and what is kept."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from idd_seg.errors import ConfigError, UserError
from idd_seg.runs.provenance import write_json
from idd_seg.studies.course import Course
from idd_seg.studies.jobs import COST, Job, Result, Runner
from idd_seg.studies.plan import read_plan

NODE: dict[str, Any] = {
    "name": "small",
    "common": ["data=shapes"],
    "search": ["data.held_out=5"],
    "factors": [0.3, 1.0, 3.0],
    "search_seeds": [0, 1],
    "seeds": [0, 1],
    "twin": "twin",
    "methods": {
        "twin": {"weights": {"ce": 1.0}},
        "kd": {"weights": {"ce": 1.0, "kd": 2.0}, "scale": ["kd"]},
        "kd+cwd": {"weights": {"ce": 1.0, "kd": "@kd", "cwd": 3.0}, "scale": ["cwd"]},
        "all": {"weights": {"ce": 1.0, "kd": "@kd", "cwd": "@kd+cwd"}},
    },
}


class Instant:
    """A runner whose runs score best at a kd weight of 0.6, a cwd weight of 9, and a learning rate that is told."""

    def __init__(self, best_rate: float = 1.0) -> None:
        self.best_rate = best_rate
        self.waves: list[list[str]] = []
        self.words: dict[str, Sequence[str]] = {}

    def run(self, jobs: Sequence[Job], then: Callable[[int, Result], None]) -> None:
        self.waves.append([job.folder.name for job in jobs])
        for number, job in reversed(list(enumerate(jobs))):  # they end in any order
            self.words[job.folder.name] = job.options
            weights = dict(word.removeprefix("loss.").split("_weight=") for word in job.options if "_weight=" in word)
            kd, cwd = float(weights.get("kd", 0.6)), float(weights.get("cwd", 9))
            seed = int(next(word for word in job.options if word.startswith("seed="))[5:])
            miou = 0.5 - 0.01 * abs(kd - 0.6) - 0.001 * abs(cwd - 9) + 0.02 * seed + 0.01 * len(weights)
            rate = next((float(word.partition("=")[2]) for word in job.options if "optimizer.lr=" in word), 1.0)
            miou -= 0.1 * abs(math.log10(rate / self.best_rate))
            then(number, Result(miou, {}, 10.0, 1000, "abc", 0.7))


@pytest.fixture
def course(tmp_path: Path) -> Course:
    (tmp_path / "kept").mkdir()
    return Course(read_plan(NODE), tmp_path / "runs", tmp_path / "kept", Instant())  # type: ignore[arg-type]


def test_weights_are_found_in_waves(course: Course) -> None:
    course.search()
    assert course.chosen == {
        "twin": {"ce": 1.0},
        "kd": {"ce": 1.0, "kd": pytest.approx(0.6)},
        "kd+cwd": {"ce": 1.0, "kd": pytest.approx(0.6), "cwd": 9.0},
        "all": {"ce": 1.0, "kd": pytest.approx(0.6), "cwd": 9.0},
    }
    waves = course.runner.waves  # type: ignore[attr-defined]
    assert [sorted({name.split("-x")[0] for name in wave}) for wave in waves] == [["search-kd"], ["search-kd+cwd"], []]
    assert [len(wave) for wave in waves] == [6, 6, 0]
    assert "data.held_out=5" in course.runner.words["search-kd-x3-seed1"]  # type: ignore[attr-defined]


def searched(tmp_path: Path, **more: Any) -> Course:
    course = Course(read_plan({**NODE, **more}), tmp_path / "runs", tmp_path, Instant())  # type: ignore[arg-type]
    course.search()
    return course


def test_a_search_goes_on_while_the_best_lies_at_its_edge(tmp_path: Path) -> None:
    course = searched(tmp_path, extend=3)
    waves = course.runner.waves  # type: ignore[attr-defined]
    # The best weights, 0.6 and 9, are the first search's edges: one step beyond is worse, and enough.
    assert [sorted({name.split("-x")[1].split("-")[0] for name in wave}) for wave in waves] == [
        ["0.3", "1", "3"],
        ["0.09"],
        ["0.3", "1", "3"],
        ["9"],
        [],
    ]
    assert (course.chosen["kd"]["kd"], course.chosen["kd+cwd"]["cwd"]) == (pytest.approx(0.6), 9.0)


@pytest.mark.parametrize(("extend", "found"), [(0, 1.0), (1, 3.0), (2, 9.0), (5, 9.0)])
def test_a_search_goes_so_far_beyond_its_edge_as_it_may(tmp_path: Path, extend: int, found: float) -> None:
    methods = {"twin": NODE["methods"]["twin"], "cwd": {"weights": {"ce": 1.0, "cwd": 1.0}, "scale": ["cwd"]}}
    course = searched(tmp_path, methods=methods, factors=[0.333, 1.0], extend=extend)
    assert course.chosen["cwd"]["cwd"] == pytest.approx(found, rel=0.02)
    assert len(course.runner.waves) == min(extend, 3) + 1  # type: ignore[attr-defined]


def rated(tmp_path: Path, **more: Any) -> tuple[Course, Instant]:
    runner = Instant(best_rate=0.003)
    course = Course(read_plan({**NODE, **more}), tmp_path / "runs", tmp_path, runner)  # type: ignore[arg-type]
    course.search()
    course.train()
    return course, runner


def test_the_learning_rate_that_suits_the_twin_is_found_first_and_taken_by_all(tmp_path: Path) -> None:
    course, runner = rated(tmp_path, rates=[0.001, 0.003, 0.01])
    assert course.rate == 0.003
    names = {f"rate-twin-lr{rate}-seed{seed}" for rate in (0.001, 0.003, 0.01) for seed in (0, 1)}
    assert set(runner.waves[0]) == names
    assert "data.held_out=5" in runner.words["rate-twin-lr0.01-seed0"]
    assert "optimizer.lr=0.01" in runner.words["rate-twin-lr0.01-seed0"]
    others = [words for name, words in runner.words.items() if not name.startswith("rate")]
    assert len(others) == 2 * 6 + 2 * 4
    assert all("optimizer.lr=0.003" in words for words in others)
    assert course.chosen["kd"]["kd"] == pytest.approx(0.6)
    assert json.loads((tmp_path / "chosen.json").read_text())["learning_rate"] == 0.003


def test_rates_are_tried_further_while_the_best_lies_at_the_edge(tmp_path: Path) -> None:
    course, runner = rated(tmp_path, rates=[0.0003, 0.001], extend=4)
    assert course.rate == 0.00333
    assert [len(wave) for wave in runner.waves[:3]] == [4, 2, 2]


def test_without_rates_the_learning_rate_is_left_alone(tmp_path: Path) -> None:
    course, runner = rated(tmp_path)
    assert course.rate is None
    assert not any(word.startswith("optimizer.lr") for words in runner.words.values() for word in words)
    assert "learning_rate" not in json.loads((tmp_path / "chosen.json").read_text())


@pytest.mark.parametrize("rates", [0.1, "fast", [0.1, 0], [-1.0], [True], [float("inf")], [float("nan")], ["1e-3"]])
def test_rates_that_make_no_sense_are_refused(rates: Any) -> None:
    with pytest.raises(ConfigError, match=r"study\.rates must be a list of learning rates above 0"):
        read_plan({**NODE, "rates": rates})


@pytest.mark.parametrize("word", ["optimizer.lr=0.1", "lr=0.1"])
def test_a_rate_that_is_given_and_searched_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.rates searches the learning rate, which study\.common gives"):
        read_plan({**NODE, "rates": [0.1], "common": ["data=shapes", word]})


def test_one_factor_has_no_beyond(tmp_path: Path) -> None:
    course = searched(tmp_path, factors=[1.0], extend=2)
    assert [len(wave) for wave in course.runner.waves] == [2, 2, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("extend", [-1, 1.5, True, "two"])
def test_extend_must_be_a_whole_number(extend: object) -> None:
    with pytest.raises(ConfigError, match=r"study\.extend must be a whole number"):
        read_plan({**NODE, "extend": extend})


def test_runs_go_seed_by_seed_with_the_weights_that_were_found(course: Course) -> None:
    course.search()
    course.train()
    last = course.runner.waves[-1]  # type: ignore[attr-defined]
    assert last == [f"final-{name}-seed{seed}" for seed in (0, 1) for name in NODE["methods"]]
    words = course.runner.words["final-all-seed1"]  # type: ignore[attr-defined]
    assert "data.held_out=5" not in words
    assert [word for word in words if "weight" in word] == [
        "loss.ce_weight=1",
        "loss.kd_weight=0.6",
        "loss.cwd_weight=9",
    ]


def test_table_and_files_hold_every_run(course: Course) -> None:
    course.search()
    assert course.table == ""
    course.train()
    names = {path.stem for path in course.kept.glob("*.json")}
    assert len(names) == 12 + 8 + 1
    table = (course.kept / "table.md").read_text()
    assert [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]] == ["teacher", *NODE["methods"]]
    # kd adds 0.01 to 0.51, of a gap of 0.7 - 0.52 (the mean of two seeds)
    (row,) = [line for line in table.splitlines() if line.startswith("| kd |")]
    assert "| 53.00 ± 1.41 | 2 | +1.00 | +1.00 to +1.00 | 6 % |" in row
    assert (course.kept / "methods.png").stat().st_size > 5000
    assert json.loads((course.kept / "chosen.json").read_text())["teacher_miou"] == 0.7
    assert json.loads((course.kept / "final-all-seed0.json").read_text())["weights"]["cwd"] == 9.0


def test_kept_results_stand_for_runs_whose_folders_are_gone(course: Course) -> None:
    course.search()
    course.train()
    table = course.table
    again = Course(course.plan, course.folder, course.kept, Instant())  # type: ignore[arg-type]
    again.search()
    again.train()
    assert again.table == table
    assert not any(again.runner.waves)  # type: ignore[attr-defined]
    # Other options make another run.
    other = Course(read_plan({**NODE, "common": ["data=voc"]}), course.folder, course.kept, Instant())  # type: ignore[arg-type]
    other.search()
    assert [len(wave) for wave in other.runner.waves] == [6, 6, 0]  # type: ignore[attr-defined]


def test_the_lead_of_ours_is_of_the_same_seeds(tmp_path: Path) -> None:
    course = Course(read_plan({**NODE, "ours": "all"}), tmp_path, tmp_path, Instant())  # type: ignore[arg-type]
    course.search()
    course.train()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in course.table.splitlines()}
    assert rows["method"] == "all is ahead by"
    assert rows["twin"] == "+2.00 (+2.00 to +2.00)"
    assert rows["kd"] == "+1.00 (+1.00 to +1.00)"
    assert rows["all"] == ""


def test_a_plan_says_what_a_method_is_held_against(tmp_path: Path) -> None:
    node = {**NODE, "methods": {**NODE["methods"], "all": {**NODE["methods"]["all"], "against": "kd"}}}
    course = Course(read_plan(node), tmp_path, tmp_path, Instant())  # type: ignore[arg-type]
    course.search()
    course.train()
    assert course.table.splitlines()[-1].split(" | ")[-1] == "kd: +1.00 (+1.00 to +1.00) |"


class Timed(Instant):
    """A runner whose steps with a teacher take twice the time, of trainings of 100 steps unless they say otherwise."""

    def run(self, jobs: Sequence[Job], then: Callable[[int, Result], None]) -> None:
        self.waves.append([job.folder.name for job in jobs])
        for number, job in enumerate(jobs):
            self.words[job.folder.name] = job.options
            given = [int(word.partition("=")[2]) for word in job.options if word.startswith("trainer.max_steps=")]
            steps, pace = (given or [100])[-1], 2.0 if any("kd" in word for word in job.options) else 1.0
            noise = 5.0 if "seed=1" in job.options else 1.0  # something else ran on the machine
            course = [
                {
                    "step": step,
                    "miou": 0.4 + 0.001 * step * pace,
                    "seconds": noise * step * pace,
                    "cpu_seconds": step * pace,
                }
                for step in (steps // 2, steps)
            ]
            last = course[-1]
            known = (last["miou"], {"road": last["miou"], "sky": None}, last["seconds"], 1000, "abc", 0.9)
            then(number, Result(*known, steps, last["cpu_seconds"], course))


TIMED = {
    "twin": {"weights": {"ce": 1.0}},
    "kd": {"weights": {"ce": 1.0, "kd": 2.0}},
    "twin_long": {"weights": {"ce": 1.0}, "against": "twin", "as_long_as": "slowest"},
    "kd_short": {"weights": {"ce": 1.0, "kd": 2.0}, "against": "kd", "as_long_as": "twin"},
}


def test_a_method_takes_as_long_as_another_one(tmp_path: Path) -> None:
    plan = read_plan({**NODE, "methods": TIMED, "clock": "cpu"})
    course = Course(plan, tmp_path / "runs", tmp_path, Timed())  # type: ignore[arg-type]
    course.search()
    course.train()
    words = course.runner.words  # type: ignore[attr-defined]
    for seed in (0, 1):  # the first seed's times hold for all, so that they are the same method
        assert words[f"final-twin_long-seed{seed}"][-3] == "trainer.max_steps=200"
        assert words[f"final-kd_short-seed{seed}"][-3] == "trainer.max_steps=50"
    rows = {cells[0]: cells for line in course.table.splitlines() if (cells := line.strip("| ").split(" | "))}
    place = {name: number for number, name in enumerate(rows["method"])}
    assert float(rows["kd"][place["time"]]) == 2.0
    # Twice as good a step, at twice the time: after half of its steps it is where the twin ends.
    assert float(rows["kd"][place["to the twin's score"]]) == 1.0
    assert rows["kd_short"][place["to the twin's score"]].strip() == "1.00"
    assert rows["kd"][place["at equal time"]].startswith("+0.00")
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert (tmp_path / "classes.png").stat().st_size > 5000


def test_times_by_the_clock_on_the_wall(tmp_path: Path) -> None:
    course = Course(read_plan({**NODE, "methods": TIMED}), tmp_path / "runs", tmp_path, Timed())  # type: ignore[arg-type]
    course.search()
    course.train()
    (row,) = [line for line in course.table.splitlines() if line.startswith("| twin_long |")]
    assert "| 2.00 |" in row


def test_results_without_times_are_no_measure(tmp_path: Path) -> None:
    course = Course(read_plan({**NODE, "methods": TIMED, "clock": "cpu"}), tmp_path, tmp_path, Instant())  # type: ignore[arg-type]
    course.search()
    with pytest.raises(ConfigError, match=r"twin_long.as_long_as: the results of 'twin' .* earlier version"):
        course.train()


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ({"as_long_as": "slowest"}, "needs study.methods.long.against"),
        ({"as_long_as": "slowest", "against": "kd"}, "weights and options must be those of kd"),
        ({"as_long_as": "kid", "against": "twin"}, "long.as_long_as=kid is neither slowest nor one of twin"),
        ({"as_long_as": "long", "against": "twin"}, "long.as_long_as=long is neither slowest nor one of twin"),
    ],
)
def test_a_method_can_t_take_as_long_as_any(method: dict[str, Any], told: str) -> None:
    twin, kd = {"weights": {"ce": 1.0}}, {"weights": {"ce": 1.0, "kd": 1.0}}
    methods = {"twin": twin, "kd": kd, "long": {**twin, **method}}
    with pytest.raises(ConfigError, match=told):
        read_plan({**NODE, "methods": methods})


def test_the_clock_is_one_of_two() -> None:
    with pytest.raises(ConfigError, match=r"study\.clock must be one of wall, cpu, got 'sun'"):
        read_plan({**NODE, "clock": "sun"})


@pytest.mark.parametrize(("rivals", "shown"), [([], ["twin", "all", "kd+cwd"]), (["kd"], ["twin", "kd", "kd+cwd"])])
def test_the_picture_shows_the_best_of_the_rivals(tmp_path: Path, rivals: list[str], shown: list[str]) -> None:
    (tmp_path / "kept").mkdir()
    plan = read_plan({**NODE, "ours": "kd+cwd", "rivals": rivals})
    course = Course(plan, tmp_path / "runs", tmp_path / "kept", Instant())  # type: ignore[arg-type]
    course.search()
    course.train()
    assert course.shown == shown


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("rivals", ["idd"], "study.rivals=.*name some of the methods twin, kd, kd.cwd, all"),
        ("rivals", "kd", "study.rivals=kd: name some"),
        ("seeds", 3, r"study.seeds must be a list, e.g. \[3\], got '3'"),
        ("seeds", [], "need at least one number"),
    ],
)
def test_odd_plans_are_refused(key: str, value: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_plan({**NODE, key: value})


@pytest.mark.parametrize("only", [None, ["twin", "kd"]])
def test_ours_must_be_a_method(only: list[str] | None) -> None:
    with pytest.raises(ConfigError, match=r"study\.ours=idd is none of the methods"):
        read_plan({**NODE, "ours": "idd"}, only)
    assert read_plan({**NODE, "ours": "all"}, ["twin", "kd"]).ours is None


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script in the place of Python; its run folder is `$RUN`."""
    path = folder / "python"
    path.write_text(
        f'#!/bin/sh\nfor word; do case "$word" in hydra.run.dir=*) RUN="${{word#*=}}";; esac; done\n{script}\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("sys.executable", str(path))


FINISH = """
mkdir -p "$RUN"
echo '{"last": {"miou": 0.5, "iou": {}}, "seconds": 1.0, "teacher": null}' > "$RUN/metrics.json"
echo '{"git": null}' > "$RUN/run.json"
"""


def jobs(folder: Path, number: int) -> list[Job]:
    return [Job(folder / f"job{i}", [f"seed={i}"], f"job {i}") for i in range(number)]


# Jobs in pairs: each ends when the other one of its pair has begun, and says how many ran beside it.
MEET = """
cd "$(dirname "$RUN")"
: > "$RUN.begun"
case "$RUN" in *[01]) pair=[01];; *) pair=[23];; esac
until [ "$(ls job$pair.begun | wc -l)" = 2 ]; do sleep 0.05; done
"""


def test_two_jobs_run_at_once_with_a_share_of_the_cores_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    stand_in(tmp_path, f"{MEET}{FINISH}\necho $OMP_NUM_THREADS > $RUN/threads", monkeypatch)
    found: dict[int, Result] = {}
    runner = Runner(2)
    most = 0

    def then(number: int, result: Result) -> None:
        nonlocal most
        found[number] = result
        most = max(most, len(runner.running))

    runner.run(jobs(tmp_path, 4), then)
    assert most <= 2
    assert {number: result.miou for number, result in found.items()} == dict.fromkeys(range(4), 0.5)
    assert found[0].memory > 0
    assert [(tmp_path / f"job{i}" / "threads").read_text().strip() for i in range(4)] == ["3"] * 4
    # What is finished is not run again.
    stand_in(tmp_path, "exit 1", monkeypatch)
    again: dict[int, Result] = {}
    Runner(2).run(jobs(tmp_path, 4), again.__setitem__)
    assert again == found


def test_jobs_share_out_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, f"{MEET}{FINISH}\necho $CUDA_VISIBLE_DEVICES > $RUN/gpu", monkeypatch)
    Runner(2, ["GPU-a", "GPU-b"]).run(jobs(tmp_path, 2), lambda number, result: None)
    assert {(tmp_path / f"job{i}" / "gpu").read_text().strip() for i in range(2)} == {"GPU-a", "GPU-b"}


def test_one_that_fails_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails, waits = 'sleep 0.5; echo "error: no luck"; exit 1', 'trap "exit 143" TERM; sleep 30 & wait'
    script = f'case "$RUN" in *job0) {fails};; *) {waits};; esac'
    stand_in(tmp_path, script, monkeypatch)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"job 0: the run failed \(error: no luck\).*job0\.log"):
        Runner(2).run(jobs(tmp_path, 5), lambda number, result: None)
    assert time.monotonic() - start < 10
    assert not (tmp_path / "job4.log").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_study_stops_its_runs(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(
        f"#!/bin/sh\ntrap 'touch {tmp_path}/stopped; exit 143' TERM\ntouch {tmp_path}/started\nsleep 30 & wait\n"
    )
    script.chmod(0o755)
    code = (
        f"import sys; sys.argv = ['study', 'study=shapes', 'output_dir={tmp_path}', 'only=[twin]'];"
        "from idd_seg import study; from idd_seg.config import command_line;"
        f"sys.executable = '{script}'; command_line.run(study.main, 'study')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    limit = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert (tmp_path / "stopped").exists()


def test_a_folder_without_its_cost_is_not_finished(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, 1)
    assert not job.finished
    job.folder.mkdir()
    write_json(job.folder / "metrics.json", {})
    assert not job.finished
    write_json(job.folder / COST, {"options": ["seed=0"]})
    assert job.finished
    # Another run's result is not taken for this one's.
    assert not Job(job.folder, ["seed=1"], "").finished
