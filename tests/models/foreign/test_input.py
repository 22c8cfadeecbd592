"""From the data's normalisation to a network's own: exact, and bad numbers are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from idd_seg.errors import ConfigError
from idd_seg.models.foreign.input import InputFormat
from tests.models.foreign.networks import cirkd, plain_input

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def column(values: list[float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


@pytest.fixture
def bytes_() -> Tensor:
    """Pictures as files hold them: 0 to 255."""
    return torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ([0.47] * 3, [0.2] * 3)])
def test_blue_green_red_from_0_to_255(bytes_: Tensor, mean: list[float], std: list[float]) -> None:
    own = [104.00698793, 116.66876762, 122.67891434]
    sees = InputFormat(own, [1.0] * 3, mean, std, scale=255.0, order="bgr")
    expected = bytes_.flip(1) - column(own)
    torch.testing.assert_close(sees((bytes_ / 255 - column(mean)) / column(std)), expected, atol=1e-4, rtol=0)


def test_red_green_blue_from_0_to_255(bytes_: Tensor) -> None:
    own, deviation = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    sees = InputFormat(own, deviation, [0.3, 0.4, 0.5], [0.1, 0.2, 0.3], scale=255.0)
    picture = (bytes_ / 255 - column([0.3, 0.4, 0.5])) / column([0.1, 0.2, 0.3])
    torch.testing.assert_close(sees(picture), (bytes_ - column(own)) / column(deviation), atol=1e-5, rtol=0)


def test_the_same_normalisation_changes_no_bit(bytes_: Tensor) -> None:
    picture = (bytes_ / 255 - column(MEAN)) / column(STD)
    assert InputFormat(MEAN, STD, MEAN, STD)(picture) is picture
    own, deviation = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # the same, times 255
    assert InputFormat(own, deviation, MEAN, STD, scale=255.0)(picture) is picture


def test_sides_are_scaled_up_to_a_multiple() -> None:
    picture = torch.rand(1, 3, 33, 64)
    assert plain_input(multiple=32)(picture).shape == (1, 3, 64, 64)
    assert plain_input(multiple=32)(picture[:, :, :32]).shape == (1, 3, 32, 64)
    assert plain_input(size=[16, 20])(picture).shape == (1, 3, 16, 20)


def test_half_precision_is_of_the_network_alone(bytes_: Tensor) -> None:
    """Normalised in float32 first: an offset of 100 would cost half precision its second decimal."""
    network = cirkd("psp").eval()
    sees = InputFormat([104.0] * 3, [1.0] * 3, MEAN, STD, scale=255.0, order="bgr")
    network.input = sees
    exact = sees((bytes_ / 255 - column(MEAN)) / column(STD))
    network.bfloat16()
    seen: list[Tensor] = []
    network.maps = lambda x: (seen.append(x), {})  # type: ignore[method-assign, return-value, assignment]
    network((bytes_ / 255 - column(MEAN)) / column(STD))
    assert torch.equal(seen[0], exact.bfloat16())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": [1.0, 0.0, 1.0]}, r"input\.std must be above 0"),
        ({"mean": [1.0, 2.0]}, r"input\.mean must be three finite numbers"),
        ({"mean": [1.0, 2.0, float("nan")]}, r"input\.mean must be three finite numbers"),
        ({"scale": 0}, r"input\.scale must be a number above 0, got 0"),
        ({"order": "brg"}, r"input\.order must be one of rgb, bgr, got 'brg'"),
        ({"multiple": 0}, "multiple must be at least 1"),
        ({"size": [3]}, "size two numbers above 0"),
    ],
)
def test_bad_numbers(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain_input(**changes)
