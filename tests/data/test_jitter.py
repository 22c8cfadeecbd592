"""Colour jitter on the device: each step by hand, the hue against colorsys, the ranges against albumentations."""

from __future__ import annotations

import colorsys

import albumentations
import numpy as np
import pytest
import torch

from idd_seg.data.augment import Augmentation
from idd_seg.data.pipeline.jitter import ColourJitter, recoloured
from idd_seg.errors import ConfigError

FIELD = albumentations.ColorJitter(
    brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=(-0.03, 0.03), p=0.5
)


def image(*pixels: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(pixels, dtype=torch.uint8).T.reshape(1, 3, 1, len(pixels))


def changed(x: torch.Tensor, *colours: float) -> list[list[float]]:
    return recoloured(x, torch.tensor([colours], dtype=torch.float32))[0, :, 0].T.tolist()


def test_ones_and_no_turn_leave_a_picture_as_it_is() -> None:
    x = torch.randint(256, (2, 3, 9, 7), dtype=torch.uint8)
    same = recoloured(x, torch.tensor([[1.0, 1.0, 1.0, 0.0]]).expand(2, 4))
    torch.testing.assert_close(same, x.float(), atol=1e-3, rtol=0)


def test_brightness_multiplies_and_stops_at_white() -> None:
    assert changed(image((10, 100, 200)), 1.5, 1, 1, 0)[0] == pytest.approx([15, 150, 255], abs=1e-3)


def test_contrast_moves_away_from_the_mean_luminance() -> None:
    found = changed(image((100, 100, 100), (200, 200, 200)), 1, 0.5, 1, 0)
    assert found[0] == pytest.approx([125] * 3, abs=1e-3)
    assert found[1] == pytest.approx([175] * 3, abs=1e-3)


def test_no_saturation_is_the_luminance() -> None:
    grey = 0.299 * 10 + 0.587 * 100 + 0.114 * 200
    assert changed(image((10, 100, 200)), 1, 1, 0, 0)[0] == pytest.approx([grey] * 3, abs=1e-3)


@pytest.mark.parametrize("turn", [0.25, -0.03, 0.5])
def test_the_hue_turns_as_in_hsv(turn: float) -> None:
    x = torch.randint(256, (1, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = recoloured(x, torch.tensor([[1, 1, 1, turn]]))[0].flatten(1).T / 255
    for before, after in zip((x[0].flatten(1).T / 255).tolist(), found.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb((h + turn) % 1, s, v), abs=1e-5)


def test_every_image_has_its_own_numbers() -> None:
    x = image((50, 50, 50)).expand(2, 3, 1, 1)
    found = recoloured(x, torch.tensor([[1.0, 1, 1, 0], [2.0, 1, 1, 0]]))
    assert found[:, 0, 0, 0].tolist() == pytest.approx([50, 100], abs=1e-3)


def test_the_ranges_are_those_of_the_transform() -> None:
    jitter = ColourJitter.like([FIELD])
    assert jitter == ((0.7, 1.3), (0.7, 1.3), (0.7, 1.3), (-0.03, 0.03), 0.5)
    drawn = np.stack([jitter.draw(np.random.default_rng(i)) for i in range(400)])
    changed = (drawn != [1, 1, 1, 0]).any(1)
    assert 0.4 < changed.mean() < 0.6
    assert (drawn.min(0) >= np.float32([0.7, 0.7, 0.7, -0.03])).all()
    assert (drawn.max(0) <= np.float32([1.3, 1.3, 1.3, 0.03])).all()
    assert drawn[:, 0].max() > 1.25


def test_another_transform_can_t_be_done_on_the_device() -> None:
    with pytest.raises(ConfigError, match=r"on_device=true takes one albumentations\.ColorJitter.*GaussianBlur"):
        Augmentation(photometric=[FIELD, albumentations.GaussianBlur()], on_device=True)


def test_without_a_transform_nothing_is_changed() -> None:
    assert Augmentation(photometric=None, on_device=True).jitter is None
