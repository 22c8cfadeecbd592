"""`python -m idd_seg.rank`: one process of a distributed run. The run's supervisor starts it; nobody else does."""

from __future__ import annotations

import os
import sys
import threading
import time

from idd_seg.errors import Pruned, UserError
from idd_seg.place import Place

PARENT = "IDD_SEG_SUPERVISOR"  # in the environment: the process with which this one ends


def main() -> None:
    """Take part in the run whose store the environment names."""
    if PARENT not in os.environ:
        sys.exit("error: python -m idd_seg.train trainer=ddp trainer.devices=N starts these processes by itself")
    # Before the imports, which take seconds.
    _end_with(int(os.environ[PARENT]))

    from omegaconf import OmegaConf
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from idd_seg import cli  # noqa: F401 - the resolvers of configurations, and the settings of the environment
    from idd_seg.group import CONFIG, ERROR, PRUNED
    from idd_seg.job import take_part
    from idd_seg.supervisor import ADDRESS, PORT

    world = int(os.environ["WORLD_SIZE"])
    place = Place(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]), world)
    store = TCPStore(ADDRESS, int(os.environ[PORT]), is_master=False, wait_for_workers=False)
    try:
        take_part(OmegaConf.create(store.get(CONFIG).decode()), store, place)  # type: ignore[arg-type]
    except (UserError, OSError, Pruned):
        sys.exit(1)  # which the supervisor has been told
    except Exception:
        # The group broke because another process left it, which has said why.
        if store.check([PRUNED]) or any(store.check([ERROR.format(rank)]) for rank in range(world)):
            sys.exit(1)
        raise


def _end_with(parent: int) -> None:
    """End when the supervisor has gone, even if it was killed."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


if __name__ == "__main__":
    main()
