"""Which of the data's channels a teacher is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from idd_seg.checkpoints.reader import Saved
from idd_seg.config.instantiate import plain
from idd_seg.errors import CheckpointError, ConfigError

RGB = 3  # channels of every network from elsewhere, and of files from before there were others


def channels_of(saved: Saved) -> int:
    """Return how many channels the student of a checkpoint takes."""
    try:
        return int(saved.config("student").get("in_channels", RGB))
    except (CheckpointError, TypeError, ValueError):
        return RGB


def shown_channels(cfg: DictConfig, own: int) -> list[int] | None:
    """Return the places of the data's channels that the teacher is shown, in its order; None for all as they are.

    Args:
        own: channels that the teacher's network takes.

    Raises:
        ConfigError: for places that are none, or of another number than the network takes.
    """
    there, chosen = int(cfg.data.channels), plain(cfg.teacher.get("channels"))
    if chosen is None:
        if own == there:
            return None
        example = ",".join(str(place % there) for place in range(own))
        raise ConfigError(
            f"the teacher takes {own} channel{'' if own == 1 else 's'}, and the data have {there} (data.channels); say "
            f"which of them it is shown, counted from 0: 'teacher.channels=[{example}]'"
        )
    if not isinstance(chosen, list) or not all(type(place) is int and 0 <= place < there for place in chosen):
        raise ConfigError(
            f"teacher.channels={chosen}: give places of the data's {there} channels, 0 to {there - 1}, e.g. [0,1,2]"
        )
    if len(chosen) != own:
        raise ConfigError(f"teacher.channels names {len(chosen)} channels, and the teacher takes {own}")
    return None if chosen == list(range(there)) else chosen


def normalisation(cfg: DictConfig, shown: Sequence[int] | None) -> Mapping[str, Any]:
    """Return `data_mean` and `data_std` of the channels that a teacher is shown."""
    numbers = {name: plain(cfg.data[key]) for name, key in (("data_mean", "mean"), ("data_std", "std"))}
    return numbers if shown is None else {name: [row[place] for place in shown] for name, row in numbers.items()}
