"""Windows shown row by row give the class ids of all windows at once, in memory that does not grow with the picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idd_seg.evaluation import sliding_window
from idd_seg.evaluation.inference import Inference
from idd_seg.ops.upsample import predict
from idd_seg.types import Outputs


class Network(nn.Module):
    """Coarse logits, a quarter of the picture a side; counts the largest and all of what it is shown."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, num_classes, 3, stride=4, padding=1)
        self.shown: list[tuple[int, int]] = []

    def forward(self, image: Tensor) -> Outputs:
        self.shown.append((image.shape[-2], image.shape[-1]))
        return Outputs(self.conv(image), {})


def blocks(height: int, width: int, images: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(images, 3, -(-height // 7), -(-width // 7), generator=generator)
    return coarse.repeat_interleave(7, 2).repeat_interleave(7, 3)[..., :height, :width].contiguous()


def by_strips(inference: Inference, network: nn.Module, image: Tensor, size: tuple[int, int]) -> Tensor:
    parts = list(sliding_window.class_chunks(inference, network, image, size, lambda part: part * 2 - 1))
    tops = [top for top, _ in parts]
    assert tops == sorted(tops)
    assert tops[0] == 0
    return torch.cat([ids.long() for _, ids in parts], dim=1)


WAYS: dict[str, Any] = {
    "whole": Inference(),
    "windows": Inference("slide", (24, 32)),
    "windows far apart": Inference("slide", (24, 32), (24, 32)),
    "windows close together": Inference("slide", (24, 32), (5, 9)),
    "one column": Inference("slide", (24, 400)),
    "mirrored": Inference("slide", (24, 32), flip=True),
    "scales": Inference("slide", (24, 32), scales=[0.5, 1.0, 1.3], flip=True),
    "whole scales": Inference(scales=[0.75, 1.25]),
}
SIZES = {"own": (61, 93), "larger": (122, 186), "odd": (83, 140), "smaller": (31, 46)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_class_ids_are_those_of_all_windows_at_once(way: str, size: str) -> None:
    network, image = Network(), blocks(61, 93, images=2)
    views = WAYS[way].views(network, image * 2 - 1, SIZES[size])
    found = by_strips(WAYS[way], network, image, SIZES[size])
    expected = predict(views, SIZES[size])
    assert found.shape == expected.shape == (2, *SIZES[size])
    assert len(expected.unique()) > 2
    assert (found == expected).float().mean() > 0.999


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 200)])
def test_pictures_of_any_shape(shape: tuple[int, int]) -> None:
    found = by_strips(Inference("slide", (24, 32)), Network(), blocks(*shape), shape)
    assert found.shape == (1, *shape)


def test_only_the_rows_of_windows_that_are_needed_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    inference, held = Inference("slide", (32, 32)), []
    inside = sliding_window.upsample.class_chunks

    def watched(views: Any, size: Any, rows: Any) -> Any:
        held.append(sum(patch.logits.numel() for view in views for patch in view))
        return inside(views, size, rows)

    monkeypatch.setattr(sliding_window.upsample, "class_chunks", watched)
    by_strips(inference, Network(), blocks(1600, 64), (1600, 64))
    row = 3 * 5 * 8 * 8  # windows, classes, cells
    assert row < max(held) <= 3 * row


def test_the_network_sees_nothing_larger_than_a_window() -> None:
    network = Network()
    by_strips(Inference("slide", (32, 48)), network, blocks(300, 200), (300, 200))
    assert max(network.shown) == (32, 48)
