"""What is written to files: every head as ONNX for any number and size of pictures, and pooling for any size."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from idd_seg.checkpoints.data_card import DataCard
from idd_seg.config import instantiate
from idd_seg.config.groups import config_dir
from idd_seg.errors import UserError
from idd_seg.exporting import onnx_file, parity
from idd_seg.exporting.graph import AnySizePool, Deployed, deployable, of_any_size
from idd_seg.models.segmenter import Segmenter
from idd_seg.runtimes.onnx_session import OnnxSession
from idd_seg.types import Outputs
from tests.data.layouts import compose
from tests.shipping import settle

HEADS = sorted(path.stem for path in (config_dir() / "head").glob("*.yaml"))
BACKBONES = ["mobilenetv2_050", "mobilenetv3_small_050", "efficientnet_b0", "convnext_atto"]


def card(image_scale: float = 1.0) -> DataCard:
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    return DataCard(
        "data", [f"class {i}" for i in range(11)], [(i, i, i) for i in range(11)], mean, std, image_scale, 255
    )


def network(*overrides: str) -> Segmenter:
    torch.manual_seed(0)
    made = settle(instantiate.make_student(compose("student=small", "data.num_classes=11", *overrides)))
    assert isinstance(made, Segmenter)
    return made


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 13, 64])
def test_pooling_for_any_size_is_adaptive_pooling(length: int) -> None:
    for cells in ((6, 6), (2, 3), (1, 4), (3, 1)):
        x = torch.randn(2, 4, length, length + 3)
        expected = nn.functional.adaptive_avg_pool2d(x, cells)
        assert torch.allclose(AnySizePool(*cells)(x), expected, atol=1e-6)


def check(student: Segmenter, image_scale: float, folder: Path) -> None:
    pictures = card(image_scale)
    graph = Deployed(of_any_size(deployable(student)), pictures)
    onnx_file.write_onnx(graph, folder / "model.onnx", {"key": "value"})
    found = parity.compare(Deployed(student, pictures), OnnxSession(folder / "model.onnx"))
    assert found.difference < 1e-4 * max(1.0, found.largest_logit)
    assert found.largest_logit > 0.01
    assert found.same_class > 0.999


# PSPNet's pooling is the hard part; each of the others takes seconds too.
@pytest.mark.parametrize("head", [pytest.param(h, marks=() if h == "psp" else pytest.mark.slow) for h in HEADS])
def test_every_head_is_the_same_in_onnx_runtime(head: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    check(network(f"head@student.head={head}"), 1.0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_head_on_other_backbones(head: str, backbone: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    check(network("student=mbv2", f"student.backbone={backbone}", f"head@student.head={head}"), 1.0, tmp_path)


def test_pictures_are_scaled_inside(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    check(network("head@student.head=aspp"), 0.5, tmp_path)


def test_the_graph_is_the_plain_way() -> None:
    student = network()
    pictures = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
    with torch.no_grad():
        logits = student((pictures / 255 - mean) / std).logits
        expected = nn.functional.interpolate(logits, size=(40, 56), mode="bilinear")
        assert torch.allclose(Deployed(student, card())(pictures), expected, atol=1e-5)
        assert torch.allclose(Deployed(deployable(student), card())(pictures), expected, atol=1e-5)


def test_what_is_deployed_has_neither_auxiliary_head_nor_batchnorm() -> None:
    student = network()
    assert student.auxiliary is not None
    folded = deployable(student)
    assert folded.auxiliary is None
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert student.auxiliary is not None
    assert [m for m in student.modules() if isinstance(m, nn.BatchNorm2d)]


class Straight(nn.Module):
    def forward(self, image: torch.Tensor) -> Outputs:
        return Outputs(image, {})


def test_parity_sees_a_difference() -> None:
    same = Deployed(Straight(), card())

    def other(image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = same(image)
        if image.shape[-1] == 9:
            logits = logits.clone()
            logits[0, 1, 3, 3] += 0.5
        return logits

    assert parity.compare(same, copy.deepcopy(same)).difference == 0
    found = parity.compare(same, other)
    assert found.difference == pytest.approx(0.5, abs=1e-5)
    parity.refuse_difference("a.onnx", found, 0.5)
    with pytest.raises(UserError, match=r"a.onnx was not written: its logits differ"):
        parity.refuse_difference("a.onnx", found, 1e-4)


def test_parity_refuses_what_is_not_finite_or_of_another_shape() -> None:
    same = Deployed(Straight(), card())
    for other in (lambda image: same(image) * float("nan"), lambda image: same(image)[:, :2]):
        with pytest.raises(UserError, match="was not written"):
            parity.refuse_difference("a.onnx", parity.compare(same, other), 1e9)
