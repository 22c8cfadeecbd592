"""Runs of two processes: ended at random moments, or with one of them standing still."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.chaos.kills import LIMIT, PLAIN, Result, result_of
from tests.chaos.outcome import Outcome

TOP = Path(__file__).parents[2]
GROUP, STILL = "two processes", "a process that stands still"
DDP = (*PLAIN, "data.batch_size=2", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
SIGN = "+callbacks.sign={{_target_: tests.chaos.signs.RankSign, folder: '{}'}}"
ENDLESS = ("trainer.max_steps=100000", "data.train_length=100000", "trainer.val_check_interval=100000")


def started(folder: Path, name: str, *more: str) -> subprocess.Popen[str]:
    """Start a run of two processes, each with an interpreter of its own."""
    (folder / f"{name}-signs").mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "IDD_SEG_CACHE": str(folder / "cache"),
        "PYTHONPATH": f"{TOP / 'src'}{os.pathsep}{TOP}",
    }
    sign = SIGN.format(folder / f"{name}-signs")
    return subprocess.Popen(
        [sys.executable, "-m", "idd_seg.train", *DDP, sign, "resume=auto", f"hydra.run.dir={name}", *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = LIMIT) -> tuple[int | None, str]:
    """Return exit code and output; None for a run that hangs, which is killed."""
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]


def training(process: subprocess.Popen[str], signs: Path) -> bool:
    """Wait until both processes have begun to train."""
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit and process.poll() is None:
        if len(list(signs.glob("rank*"))) == 2:
            return True
        time.sleep(0.01)
    return False


def kill_groups(folder: Path, seed: int, number: int) -> Iterator[Outcome]:
    """End a run of two processes by its supervisor or by one of the two, and compare what it comes to."""
    rng = random.Random(seed)
    code, output = ended(started(folder, "pair-whole"), 2 * LIMIT)
    assert code == 0, output
    expected = result_of(folder / "pair-whole")
    for _ in range(number):
        yield _stop(folder, rng)
    code, output = ended(started(folder, "pair-part"))
    yield _end(code, output, folder / "pair-part", expected)


def _stop(folder: Path, rng: random.Random) -> Outcome:
    how, whom = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]), rng.choice(["the run", "rank 0", "rank 1"])
    signs = folder / "pair-part-signs"
    for sign in signs.glob("rank*"):
        sign.unlink()
    process = started(folder, "pair-part")
    if not training(process, signs):
        code, output = ended(process)
        return Outcome(GROUP, "start", bad="unexplained", note=output[-2000:])
    time.sleep(rng.uniform(0.0, 0.5))
    if whom == "the run":
        process.send_signal(how)
    else:
        with suppress(ProcessLookupError):
            os.kill(int((signs / f"rank{whom[-1]}").read_text()), signal.SIGKILL)
    code, output = ended(process)
    name = how.name if whom == "the run" else "SIGKILL"
    outcome = Outcome(GROUP, f"{name} of {whom}", noticed=code != 0, note=f"exit code {code}")
    if code is None:
        outcome.bad = "hang"
    elif "Traceback" in output and "\nerror: rank" not in output:
        # Of the process that lost the other; the message behind it says which that was.
        outcome.bad, outcome.note = "unexplained", output[-2000:]
    _wait_for_ranks(signs)
    return outcome


def _wait_for_ranks(signs: Path) -> None:
    """The processes of a run that was killed end within a second or two; its lock is free before."""
    limit = time.monotonic() + 15
    for sign in signs.glob("rank*"):
        while Path(f"/proc/{sign.read_text()}").exists() and time.monotonic() < limit:
            time.sleep(0.05)


def _end(code: int | None, output: str, run: Path, expected: Result) -> Outcome:
    outcome = Outcome(GROUP, "goes on to its end", note=f"exit code {code}")
    if code is None:
        outcome.bad = "hang"
    elif code:
        outcome.bad, outcome.note = "unexplained", output[-2000:]
    elif result_of(run) != expected:
        outcome.bad = "wrong"
    return outcome


def standing_still(folder: Path) -> Iterator[Outcome]:
    """Stop one process by SIGSTOP: the time-out of the group ends the run."""
    process = started(folder, "still", *ENDLESS, "trainer.timeout_minutes=0.2")
    sign = folder / "still-signs" / "rank1"
    if not training(process, sign.parent):
        yield Outcome(STILL, "start", bad="unexplained", note=ended(process)[1][-2000:])
        return
    time.sleep(0.5)
    os.kill(int(sign.read_text()), signal.SIGSTOP)
    code, output = ended(process)
    outcome = Outcome(STILL, "SIGSTOP of rank 1", noticed=True, note=f"exit code {code}")
    if code is None:
        outcome.bad = "hang"
    elif code != 1 or "Traceback" in output or "did not answer within trainer.timeout_minutes" not in output:
        outcome.bad, outcome.note = "unexplained", output[-2000:]
    yield outcome
