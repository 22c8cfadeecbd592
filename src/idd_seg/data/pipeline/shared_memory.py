"""A folder in memory that all processes of a run share, and that is gone when the run is."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
from pathlib import Path

from idd_seg.errors import ConfigError

ROOT = Path("/dev/shm")
OWNER = "IDD_SEG_RAM_CACHE"  # the process whose folder it is; the processes that it starts inherit it
PREFIX = f"idd_seg_{os.getuid() if hasattr(os, 'getuid') else 0}_"


def shared_folder() -> Path:
    """Return this run's folder in the memory file system; it is removed when the run's first process ends.

    Folders of runs that were killed are removed by the next run.

    Raises:
        ConfigError: where there is no such file system.
    """
    if not (ROOT.is_dir() and os.access(ROOT, os.W_OK)):
        raise ConfigError(
            f"data.cache=ram needs the memory file system {ROOT}, and it can't be written; use data.cache=disk"
        )
    _remove_orphans()
    owner = os.environ.get(OWNER)
    if owner is None or not _is_number(owner) or not _alive(int(owner)):
        owner = str(_first_process())
        os.environ[OWNER] = owner
    folder = ROOT / f"{PREFIX}{owner}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if int(owner) == os.getpid() or os.environ.get("LOCAL_RANK") == "0":
        atexit.register(_remove_own, folder, os.getpid())
    return folder


def _first_process() -> int:
    """Return the process that outlives all ranks of this machine: a launcher's, or this one."""
    started = any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID"))
    return os.getppid() if started else os.getpid()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's
    return True


def _remove_orphans() -> None:
    for folder in ROOT.glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX)
        if _is_number(owner) and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_own(folder: Path, process: int) -> None:
    # Workers are forks, and must not take the folder with them.
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
