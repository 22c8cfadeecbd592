"""Whatever stops a job, under each way to start it: the run ends with the weights of one that was never stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import NODES, Cluster, cluster
from tests.cluster.ways import TOP, WAYS, Way, references

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

TERMINAL = ("srun", "submitit")
EVERY = 5  # optimizer steps between two checkpoints where a node is lost, which gives no notice
STOPS = ("pre-emption", "pre-emption with grace", "requeue", "node failure", "cancel", "ctrl-C", "time limit")
IMPOSSIBLE = {
    **{(way, "ctrl-C"): "no terminal waits" for way in ("train.sbatch", "sweep.sbatch", "multinode.sbatch")},
    ("srun", "requeue"): "SLURM requeues batch jobs alone",
}
CELLS = [(way, stop) for stop in STOPS for way in WAYS if (way, stop) not in IMPOSSIBLE]
RESULTS = Path(os.environ.get("IDD_SEG_CLUSTER_RESULTS", TOP / "outputs" / "cluster.json"))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return references(tmp_path_factory.mktemp("references"))


def wait(what: Callable[[], bool], seconds: float, words: str) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, f"after {seconds} s still not: {words}"
        time.sleep(1.0)


def begun(slurm: Cluster, stop: str, folder: Path, names: list[str]) -> list[Way]:
    """Start a run in each of the ways that can be stopped so."""
    (folder / "scripts").symlink_to(TOP / "scripts")
    ways = []
    for name in names:
        way = Way(name, slurm, folder / name.replace(".", "_"))
        way.time = (3, 60) if stop == "time limit" else None
        way.more = (f"callbacks.last.every_n_steps={EVERY}",) if stop == "node failure" else ()
        way.in_a_terminal = name in TERMINAL or stop == "ctrl-C"
        way.start()
        ways.append(way)
    return ways


def hit(slurm: Cluster, stop: str, ways: list[Way]) -> None:
    """Stop all runs."""
    if stop in ("pre-emption", "pre-emption with grace"):
        slurm.run("scontrol", "update", "PartitionName=low", f"GraceTime={60 if 'grace' in stop else 0}")
        wanted = ("-p", "high", "--nodes=2", "--exclusive", "--time=1", "--output=/dev/null", "--wrap", "sleep 3")
        slurm.run("sbatch", *wanted)
    elif stop == "node failure":
        slurm.lose_node(NODES[0])
        slurm.start_node(NODES[0])
    elif stop == "ctrl-C":
        for way in ways:
            way.interrupt()
    elif stop in ("requeue", "cancel"):
        command = ("scontrol", "requeue") if stop == "requeue" else ("scancel",)
        for way in ways:
            for job in way.queued():
                slurm.run(*command, job)


def goes_on_by_itself(way: Way, stop: str) -> bool:
    """Tell whether nobody has to give the command once more."""
    if way.name == "submitit":
        return stop not in ("cancel", "ctrl-C")  # after which its jobs go on, and their results wait to be collected
    return stop not in ("cancel", "ctrl-C") and way.name != "srun"


def stopped(slurm: Cluster, stop: str, folder: Path, names: list[str]) -> list[Way]:
    """Start runs, stop them, and let them come to their end."""
    ways = begun(slurm, stop, folder, names)
    if stop != "time limit":  # which comes by itself
        wait(lambda: all(way.trains() for way in ways), 400, "all train")
        hit(slurm, stop, ways)
    for way in ways:
        if not goes_on_by_itself(way, stop):
            wait(way.ended, 600, f"{way.name} ends")
            if not way.finished() or way.name == "submitit":
                way.start()
    wait(lambda: all(way.ended() for way in ways), 900, "all end")
    return ways


@pytest.fixture(scope="module")
def table(
    slurm: Cluster, never_stopped: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], tuple[bool, int]]]:
    """Give the table, filled as its cells are asked for; it is written where the project keeps its results."""
    found: dict[tuple[str, str], tuple[bool, int]] = {}
    yield found
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"way": way, "stop": stop, "same": same, "lost": lost} for (way, stop), (same, lost) in found.items()]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


@pytest.mark.parametrize(("way", "stop"), CELLS)
def test_nothing_is_lost(
    way: str,
    stop: str,
    slurm: Cluster,
    never_stopped: dict[str, str],
    table: dict[tuple[str, str], tuple[bool, int]],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> None:
    if (way, stop) not in table:
        asked = {item.callspec.params["way"] for item in request.session.items if _cell(item) == stop}
        names = [name for name in WAYS if name in asked]
        for found in stopped(slurm, stop, tmp_path_factory.mktemp("ways"), names):
            table[found.name, stop] = found.kept(never_stopped)
            print(found.name, stop, *table[found.name, stop], found.folder, flush=True)
        slurm.wait_idle(120)
    same, lost = table[way, stop]
    assert same
    assert lost <= (2 * EVERY if stop == "node failure" else 0)


def test_a_job_that_comes_no_further_is_put_back_no_more(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "scripts").symlink_to(TOP / "scripts")
    way = Way("train.sbatch", slurm, tmp_path / "run")
    way.more = ("max_idle_restarts=1", "+callbacks.stuck={_target_: tests.cluster.steps.Stuck}")
    way.start()
    for restarts in range(2):
        wait(lambda n=restarts: starts(way) > n, 300, f"start {restarts}")  # type: ignore[misc]
        slurm.run("scontrol", "requeue", *way.jobs)
    wait(lambda: starts(way) > 2, 300, "the last start")
    wait(way.ended, 120, "it ends")
    log = (tmp_path / "train.sbatch.log").read_text()
    assert len([line for line in log.splitlines() if line.startswith("error: ")]) == 1, log
    assert f"error: SLURM has put job {way.jobs[0]} back 2 times" in log
    assert "Traceback" not in log


def starts(way: Way) -> int:
    """Return how often a run has looked how far it had come."""
    try:
        return int(json.loads((way.folder / "restarts.json").read_text())["restarts"]) + 1
    except FileNotFoundError:
        return 0


def _cell(item: pytest.Item) -> str | None:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return str(params["stop"]) if "way" in params else None
