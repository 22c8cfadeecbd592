"""Packages that only some teachers need."""

from __future__ import annotations

import importlib
from typing import Any

from idd_seg.errors import ConfigError


def needed(package: str, extra: str) -> Any:
    """Import a package.

    Args:
        extra: the name under which this program's installation brings it.

    Raises:
        ConfigError: if it is not there; says what to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        top = package.split(".")[0]
        raise ConfigError(
            f"teacher={extra} needs the package '{top}', which can't be imported ({error}); "
            f"pip install 'idd-seg[{extra}]' brings it"
        ) from error
