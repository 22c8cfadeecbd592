"""CIRKD's and mmsegmentation's files: every name and shape, at the published sizes."""

from __future__ import annotations

import functools

import pytest
import torch

from idd_seg.models.foreign.cirkd import CIRKD
from idd_seg.models.foreign.mmseg import MMSeg
from tests.models.foreign import layouts
from tests.models.foreign.networks import HEADS, plain_input


def layout(network: torch.nn.Module) -> layouts.Layout:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("head", ["aspp", "psp"])
@pytest.mark.parametrize("depth", [18, 50, 101])
def test_cirkd(head: str, depth: int) -> None:
    with torch.device("meta"):
        network = CIRKD(19, plain_input(), head, depth)
    assert layout(network) == layouts.cirkd(head, depth, 19)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("depth", [18, 50, 101])
def test_mmseg(head: str, depth: int) -> None:
    options = {"c1_width": 12} if head == "plus" and depth == 18 else {}
    with torch.device("meta"):
        network = MMSeg(
            21, plain_input(), functools.partial(HEADS[head], **options), depth, width=128 if depth == 18 else 512
        )
    assert layout(network) == layouts.mmseg(head, depth, 21)


def test_what_is_left_out_is_what_those_projects_train_beside() -> None:
    for kind, extra in ((CIRKD, layouts.cirkd_auxiliary(19)), (MMSeg, layouts.mmseg_auxiliary(19))):
        assert all(name.startswith(tuple(kind.auxiliary)) for name in extra)
