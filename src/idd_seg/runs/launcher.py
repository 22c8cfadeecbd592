"""Starts the processes of a distributed run on this machine, and watches them: if one ends early, all end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from omegaconf import DictConfig, OmegaConf
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from idd_seg.distributed.environment import ADDRESS, PARENT, PORT
from idd_seg.distributed.process_group import CONFIG, ENDING, ERROR, FIRST, PRUNED, TIME_UP
from idd_seg.errors import Pruned, TimeUp, UserError
from idd_seg.runs.stopping import CODES, stoppable

WATCH = 0.2  # seconds between two looks
GRACE = 20.0  # seconds to end by themselves after a failure
SAVING = 600.0  # and after a signal, a long step and a large checkpoint included; a second signal ends them at once


class RankError(UserError):
    """A process of the run that ended early."""


def launch(cfg: DictConfig, devices: int) -> None:
    """Train `cfg` by as many processes; rank 0 shows its output, the others write what they say to `rank<n>.log`.

    Raises:
        UserError: what a process met, or RankError for one that ended without a word; all others have been ended.
        KeyboardInterrupt, SystemExit: after SIGINT and SIGTERM, which all processes get.
    """
    store = TCPStore(ADDRESS, 0, is_master=True, wait_for_workers=False)
    store.set(CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
    folder = Path(cfg.run_dir)
    with _logs(folder, devices) as logs, stoppable():
        ranks: list[subprocess.Popen[bytes]] = []
        grace = GRACE
        try:
            for rank in range(devices):
                ranks.append(_start(rank, devices, store.port, logs[rank]))
            _watch(ranks, store, folder)
        except (KeyboardInterrupt, SystemExit):
            grace = SAVING  # nothing has failed: they finish their step, and save
            raise
        finally:
            store.set(ENDING, "")
            _end(ranks, grace)


@contextmanager
def _logs(folder: Path, devices: int) -> Iterator[list[IO[bytes] | None]]:
    """Open a log for each process but rank 0; remove those that stay empty."""
    paths = [folder / f"rank{rank}.log" for rank in range(1, devices)]
    files = [path.open("wb") for path in paths]
    try:
        yield [None, *files]
    finally:
        for path, file in zip(paths, files, strict=True):
            file.close()
            if not path.stat().st_size:
                path.unlink()


def _start(rank: int, world: int, port: int, log: IO[bytes] | None) -> subprocess.Popen[bytes]:
    variables = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    variables = {**variables, PORT: port, PARENT: os.getpid()}
    return subprocess.Popen(
        [sys.executable, "-m", "idd_seg.runs.worker"],
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        # A terminal's ctrl-C would reach each at another step; they get it from here.
        start_new_session=True,
    )


def _watch(ranks: Sequence[subprocess.Popen[bytes]], store: TCPStore, folder: Path) -> None:
    """Return when all processes have ended well.

    Raises:
        UserError: as soon as one has not.
        KeyboardInterrupt, SystemExit: if they were told to stop by a signal.
    """
    while True:
        codes = [rank.poll() for rank in ranks]
        if any(codes):
            # One takes the others with it: what they all say is known a moment later.
            time.sleep(5 * WATCH)
            _explain([rank.poll() for rank in ranks], store, folder)
        if all(code == 0 for code in codes):
            return
        time.sleep(WATCH)


def _explain(codes: Sequence[int | None], store: TCPStore, folder: Path) -> None:
    if store.check([PRUNED]):
        raise Pruned(store.get(PRUNED).decode())
    if store.check([TIME_UP]):
        raise TimeUp(store.get(TIME_UP).decode())
    for rank in range(len(codes)):
        if store.check([ERROR.format(rank)]):
            raise UserError(store.get(ERROR.format(rank)).decode())
    killed = [rank for rank, code in enumerate(codes) if code is not None and code < 0]
    first = int(store.get(FIRST)) if store.check([FIRST]) else 0
    rank = killed[0] if killed else first if codes[first] else next(rank for rank, code in enumerate(codes) if code)
    code = codes[rank] or 0
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if code in CODES:
        raise SystemExit(code)
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    hint = " The system kills what takes too much memory: a smaller data.batch_size may help." if code == -9 else ""
    log = folder / f"rank{rank}.log"
    where = f"; see '{log}'" if rank else ""
    raise RankError(f"rank {rank} of {len(codes)} ended {how}, and the others were ended{where}.{hint}")


def _end(ranks: Sequence[subprocess.Popen[bytes]], grace: float) -> None:
    """End what still runs: first by SIGTERM, at which a run keeps its state, then by force."""
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signal.SIGTERM)
            rank.send_signal(signal.SIGCONT)  # a stopped process would never see it
    limit = time.monotonic() + grace
    try:
        for rank in ranks:
            rank.wait(max(0.0, limit - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # what still runs is ended by force
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
                rank.wait()
