"""A PSP head in two parts computes what it computes in one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from idd_seg.models.acceleration.fold_batch_norm import fold_batch_norms
from idd_seg.models.acceleration.split_pyramid import SplitPyramid, split_pyramids, spread_matrix
from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.speed import Speed
from idd_seg.models.teacher import FrozenTeacher
from tests.test_training import network


def head(bins: tuple[int, ...] = (1, 2, 3, 6), last: int = 24) -> PSPHead:
    torch.manual_seed(0)
    made = PSPHead([4, 8, 12, last], [4, 8, 8, 8], bins=bins).double()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_()
    return made.eval()


@pytest.mark.parametrize("size", [(6, 6), (16, 16), (12, 18), (7, 13), (4, 5), (1, 1), (64, 3)])
@pytest.mark.parametrize("bins", [(1, 2, 3, 6), (1,), (4, 8)])
def test_both_forms_are_equal(size: tuple[int, int], bins: tuple[int, ...]) -> None:
    whole = head(bins)
    x = torch.randn(2, 24, *size, dtype=torch.float64)
    expected = whole([x])
    torch.testing.assert_close(SplitPyramid(whole)([x]), expected, rtol=1e-12, atol=1e-12)


def test_the_matrix_spreads_as_a_convolution_of_the_enlarged_map_does() -> None:
    cells = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    taps = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    wide = F.interpolate(cells, (7, 10), mode="bilinear", align_corners=False)
    products = (taps.view(9, 1) * cells.view(1, 9)).view(-1)
    spread = (products @ spread_matrix(3, 7, 10)).view(7, 10)
    torch.testing.assert_close(spread, F.conv2d(wide, taps, padding=1)[0, 0], rtol=1e-12, atol=1e-12)


def test_another_size_gets_another_matrix() -> None:
    whole = head()
    split = SplitPyramid(whole)
    for side in (8, 12, 8):
        x = torch.randn(1, 24, side, side, dtype=torch.float64)
        torch.testing.assert_close(split([x]), whole([x]), rtol=1e-12, atol=1e-12)


def test_a_folded_network_is_split_in_place() -> None:
    whole = network(8).eval().requires_grad_(False)
    image = torch.randn(1, 3, 64, 96)
    expected = whole(image)
    fold_batch_norms(whole, image)
    assert split_pyramids(whole) == 1
    found = whole(image)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.features["head"], expected.features["head"], rtol=1e-4, atol=1e-4)
    assert split_pyramids(whole) == 0


@pytest.mark.parametrize("asked", [True, False])
def test_a_teacher_is_split_where_it_is_asked_for(asked: bool) -> None:
    def teacher() -> Segmenter:
        return network(8).eval()

    plain, made = teacher(), FrozenTeacher(teacher())
    made.network.load_state_dict(plain.state_dict())
    Speed(fold_teacher=False, split_pyramid=asked).prepare(nn.Identity(), made, torch.device("cpu"))
    image = torch.randn(2, 3, 64, 64)
    assert isinstance(made.network.head, SplitPyramid) is asked
    torch.testing.assert_close(made.network(image).logits, plain(image).logits, rtol=1e-4, atol=1e-4)


def test_a_head_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="eval"):
        SplitPyramid(head().train())
