"""ImageNet weights for timm's networks: from a file, the local cache or the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from idd_seg.errors import CheckpointError
from idd_seg.models.pretrained import hub
from idd_seg.models.pretrained.weights import read_weights
from idd_seg.ops.quiet import quiet


def pretrained_overlay(
    name: str, pretrained: bool, weights: str | None, options: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Say where timm is to load from; None means random weights.

    Args:
        options: of the network, some of which make another one of it, for which nobody has weights.

    Raises:
        CheckpointError: if weights are asked for and can't be had.
    """
    if weights is not None:
        read_weights(weights)  # refuses what is missing, damaged or hostile, with its own message
        return {"file": str(Path(weights).expanduser())}
    if not pretrained:
        return None
    if options:
        _refuse_altered(name, options)
    cached = _cached_weights(name)
    if cached is not None:
        return {"file": cached}
    if not hub.answers():
        raise no_weights(name)
    return {}


def normalisation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation that a backbone's ImageNet weights were trained with; None where timm has none."""
    found = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return None if found is None else (tuple(found.mean), tuple(found.std))


def _refuse_altered(name: str, options: Mapping[str, Any]) -> None:
    try:
        with torch.device("meta"):
            plain, altered = (
                {
                    key: value.shape
                    for key, value in timm.create_model(name, features_only=True, **more).state_dict().items()
                }
                for more in ({}, options)
            )
    except Exception:  # options that the network does not take: whoever builds it will say so
        return
    if plain != altered:
        raise CheckpointError(
            f"there are no ImageNet weights for backbone '{name}' with student.options={dict(options)}, which make "
            "another network of it; train from scratch with student.pretrained=false, or give a file of this network "
            "with student.weights=PATH"
        )


def no_weights(name: str) -> CheckpointError:
    """Return the error that says what to do where there are no ImageNet weights for a backbone."""
    return CheckpointError(
        f"no ImageNet weights for backbone '{name}': they are not in the local cache and the hub can't be reached; "
        f"give a file with student.weights=PATH, or train from scratch with student.pretrained=false; "
        "data.recipe.pretrained=false trains teacher and student from scratch"
    )


def refuse_missing(net: nn.Module, path: str, name: str) -> None:
    """Refuse a file that lacks tensors: timm leaves such layers at random, with a line in the log.

    Raises:
        CheckpointError: that names the first of them.
    """
    from timm.models import load_state_dict

    with quiet("timm"):
        held = {key.replace(".", "_") for key in load_state_dict(path)}
    missing = [
        key
        for key in net.state_dict()
        if key.replace(".", "_") not in held and not key.endswith(".num_batches_tracked")
    ]
    if missing:
        raise CheckpointError(
            f"'{path}' does not fit '{name}': {len(missing)} of its tensors are missing, the first is {missing[0]}"
        )


def _cached_weights(name: str) -> str | None:
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise CheckpointError(
            f"timm has no ImageNet weights for '{name}'; use student.weights=PATH or student.pretrained=false"
        )
    return hub.cached(cfg.hf_hub_id) if cfg.hf_hub_id else None
