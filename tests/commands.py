"""Running an entry point in this process: the same path as a user's command, without a new interpreter."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from idd_seg.config import command_line


def call(module: ModuleType, *arguments: str, folder: Path, patch: pytest.MonkeyPatch) -> int:
    """Run `python -m idd_seg.<module>` with these arguments in a folder, and return its exit code.

    Args:
        module: `idd_seg.evaluate` or another entry point, whose `main` is run with the configuration of its name.
    """
    name = module.__name__.rsplit(".", 1)[-1]
    root, handlers = logging.getLogger(), list(logging.getLogger().handlers)
    with patch.context() as here:
        here.chdir(folder)
        here.setattr(sys, "argv", [name, *arguments])
        here.setenv(command_line.TRACE, "0")
        GlobalHydra.instance().clear()
        try:
            command_line.run(module.main, name)
        except SystemExit as ended:
            return int(ended.code or 0)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
            root.handlers[:] = handlers
    return 0
