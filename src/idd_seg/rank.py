"""`python -m idd_seg.rank`: one process of a distributed run. The run's supervisor starts it; nobody else does."""

from __future__ import annotations

import os
import sys
import threading
import time

from idd_seg.errors import Pruned, UserError, message_of
from idd_seg.place import Place


def main() -> None:
    """Take part in the run whose store the environment names."""
    from omegaconf import OmegaConf
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from idd_seg import cli  # noqa: F401 - the resolvers of configurations, and the settings of the environment
    from idd_seg.group import CONFIG
    from idd_seg.job import take_part
    from idd_seg.supervisor import ADDRESS, ERROR, PORT, PRUNED

    if PORT not in os.environ:
        sys.exit("error: python -m idd_seg.train trainer=ddp trainer.devices=N starts these processes by itself")
    _end_with(os.getppid())
    world = int(os.environ["WORLD_SIZE"])
    place = Place(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]), world)
    store = TCPStore(ADDRESS, int(os.environ[PORT]), is_master=False, wait_for_workers=False)
    try:
        take_part(OmegaConf.create(store.get(CONFIG).decode()), store, place)  # type: ignore[arg-type]
    except (UserError, OSError) as error:
        store.set(ERROR.format(place.rank), message_of(error))
        sys.exit(1)
    except Pruned as pruned:
        store.set(PRUNED, str(pruned))
        sys.exit(1)


def _end_with(parent: int) -> None:
    """End when the supervisor has gone, even if it was killed."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


if __name__ == "__main__":
    main()
