"""`python -m idd_seg.runs.worker`: one process of a distributed run. The launcher starts it; nobody else does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from idd_seg.distributed.environment import PARENT, RankInfo
from idd_seg.errors import Pruned, UserError

WAIT = 5.0  # seconds


def main() -> None:
    """Take part in the run whose store the environment names."""
    if PARENT not in os.environ:
        sys.exit("error: python -m idd_seg.train trainer=ddp trainer.devices=N starts these processes by itself")
    # Before the imports, which take seconds.
    _end_with(int(os.environ[PARENT]))

    from omegaconf import OmegaConf
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from idd_seg.config import command_line  # noqa: F401 - the resolvers of configurations, and the settings of the environment
    from idd_seg.distributed.environment import ADDRESS, PORT
    from idd_seg.distributed.process_group import CONFIG
    from idd_seg.runs.run import take_part

    world = int(os.environ["WORLD_SIZE"])
    rank_info = RankInfo(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]), world)
    store = TCPStore(ADDRESS, int(os.environ[PORT]), is_master=False, wait_for_workers=False)
    try:
        take_part(OmegaConf.create(store.get(CONFIG).decode()), store, rank_info)  # type: ignore[arg-type]
    except (UserError, OSError, Pruned):
        sys.exit(1)  # which the launcher has been told
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if _others_say_why(store, rank_info, error):
            sys.exit(1)
        raise


def _others_say_why(store: Any, rank_info: RankInfo, error: Exception) -> bool:
    """Tell whether this process failed because its group broke, and another or the launcher knows why.

    So it is where the launcher has gone with its store, too: it was killed, and nobody is left to be told.
    """
    try:
        return _told(store, rank_info, error)
    except RuntimeError:  # of the store's connection
        return True


def _told(store: Any, rank_info: RankInfo, error: Exception) -> bool:
    from idd_seg.distributed.process_group import ENDING, ERROR, FIRST, PRUNED
    from idd_seg.distributed.timeouts import BROKEN

    def told() -> bool:
        return any(store.check([key]) for key in (PRUNED, ENDING, *map(ERROR.format, range(rank_info.world))))

    first = not store.check([FIRST]) or int(store.get(FIRST)) == rank_info.rank
    if first and not any(text in str(error) for text in BROKEN):
        return told()
    limit = time.monotonic() + WAIT  # for the launcher, to see that a process has ended
    while not told() and time.monotonic() < limit:
        time.sleep(0.1)
    return told()


def _end_with(parent: int) -> None:
    """End when the launcher has gone, even if it was killed."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


if __name__ == "__main__":
    main()
