"""What each head reads, and what it makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.models import layers
from idd_seg.models.heads.deeplabv3plus import DeepLabV3PlusHead
from idd_seg.models.heads.fcn import FCNHead
from idd_seg.models.heads.lraspp import LRASPPHead
from idd_seg.models.heads.upernet import UPerNetHead
from idd_seg.models.layers import GridMeans
from tests.models.test_segmenter import HEADS

CHANNELS, STRIDES = [4, 6, 8, 12], [4, 8, 16, 32]
READS = {
    "psp": {3},
    "aspp": {3},
    "fcn": {3},
    "deeplabv3plus": {0, 3},
    "lraspp": {1, 3},
    "upernet": {0, 1, 2, 3},
    "segformer": {0, 1, 2, 3},
}


def maps(images: int = 2, size: tuple[int, int] = (64, 96)) -> list[Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(images, c, size[0] // s, size[1] // s, requires_grad=True)
        for c, s in zip(CHANNELS, STRIDES, strict=True)
    ]


def grids(levels: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(level.shape[-2:]) for level in levels]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_reads_the_levels_that_it_names(head: str) -> None:
    levels = maps()
    HEADS[head](CHANNELS, STRIDES)(levels).square().sum().backward()
    assert {i for i, level in enumerate(levels) if level.grad is not None and level.grad.any()} == READS[head]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_copes_with_levels_of_one_cell_and_of_one_stride(head: str) -> None:
    network = HEADS[head](CHANNELS, STRIDES)
    one_cell = network(maps(size=(32, 32)))
    assert one_cell.isfinite().all()
    dilated = [torch.randn(2, c, 8, 8) for c in CHANNELS]
    assert network(dilated).shape == (2, network.channels, 8, 8)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_widens_with_its_backbone_alone(head: str) -> None:
    """No width is typed into a head: other levels are taken as they come."""
    narrow = HEADS[head]([c // 2 for c in CHANNELS], STRIDES).eval()
    halves = [level[:, : level.shape[1] // 2] for level in maps()]
    assert narrow(halves).shape[1] == narrow.channels


@pytest.mark.parametrize("side", [1, 2, 5, 6, 7, 12, 13, 45, 128])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_grid_means_are_exported_as_what_they_are(side: int, bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, side, side + 4)
    expected = F.adaptive_avg_pool2d(x, bins)
    assert torch.equal(GridMeans(bins)(x), expected)
    monkeypatch.setattr(layers, "exporting", lambda: True)
    torch.testing.assert_close(GridMeans(bins)(x), expected)


def test_nothing_is_exported_by_running_a_network() -> None:
    assert not layers.exporting()


def test_an_exported_pyramid_takes_other_sizes() -> None:
    free = torch.export.Dim.DYNAMIC
    example = torch.randn(1, 3, 8, 12)
    program = torch.export.export(GridMeans(6).eval(), (example,), dynamic_shapes={"input": {2: free, 3: free}})
    other = torch.randn(1, 3, 13, 5)
    torch.testing.assert_close(program.module()(other), F.adaptive_avg_pool2d(other, 6))


def test_fcn_is_as_deep_as_asked() -> None:
    head = FCNHead(CHANNELS, STRIDES, width=5, depth=3)
    shapes = [tuple(m.weight.shape) for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(5, 12, 3, 3), (5, 5, 3, 3), (5, 5, 3, 3)]
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        FCNHead(CHANNELS, STRIDES, depth=0)


def test_lraspp_with_one_classifier_is_the_paper_s_sum_of_two() -> None:
    head = LRASPPHead(CHANNELS, STRIDES, width=10).eval()
    classifier = nn.Conv2d(head.channels, 7, 1)
    levels = maps()
    with torch.no_grad():
        high = head.high(levels[3]) * torch.sigmoid(head.image[1](levels[3].mean((2, 3), keepdim=True)))
        large = F.interpolate(high, size=(8, 12), mode="bilinear", align_corners=False)
        two = F.conv2d(large, classifier.weight[:, :10], classifier.bias) + F.conv2d(
            levels[1], classifier.weight[:, 10:]
        )
        torch.testing.assert_close(classifier(head(levels)), two)


@pytest.mark.parametrize(("stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_the_rates_of_deeplabv3plus_follow_the_stride(stride: int, rates: list[int]) -> None:
    head = DeepLabV3PlusHead(CHANNELS, [4, 8, 16, stride], width=4)
    assert [m.dilation[0] for m in head.modules() if isinstance(m, nn.Conv2d) and m.dilation != (1, 1)] == rates


def test_upernet_adds_from_the_top_down() -> None:
    """With lateral maps of zero, what reaches the first level is the pooled last one."""
    head = UPerNetHead(CHANNELS, STRIDES, width=3).eval()
    for lateral in head.lateral:
        nn.init.zeros_(lateral[0].weight)
    seen: list[Tensor] = []
    head.smooth[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    levels = maps()
    head(levels)
    expected = head.pool(levels)
    for grid in reversed(grids(levels[:-1])):
        expected = F.interpolate(expected, size=grid, mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0], expected)
