"""The device on which a finished network computes."""

from __future__ import annotations

import torch

from idd_seg.errors import ConfigError


def pick_device(name: str = "auto") -> torch.device:
    """Return the named device; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: for one that can't be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={name} can't be used here ({reason}); device=auto takes what there is") from error
    return device
