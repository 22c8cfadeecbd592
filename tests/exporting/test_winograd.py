"""Winograd's products are the convolution, for every dilation and size; narrow and other layers stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from idd_seg.exporting import onnx_file, winograd
from idd_seg.exporting.winograd import WinogradConv
from idd_seg.runtimes.onnx_session import OnnxSession


@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 30), (16, 17), (37, 51)])
def test_the_products_are_the_convolution(dilation: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 24, 3, padding=dilation, dilation=dilation)
    assert layer.bias is not None
    x = torch.randn(2, 16, *size)
    found = WinogradConv(layer.weight, layer.bias, dilation)(x)
    assert torch.allclose(found, layer(x), atol=1e-4)


class Layers(nn.Module):
    """Convolutions that gain, and such that do not or can't be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 12, 3, padding=2, dilation=2)
        self.plain = nn.Conv2d(12, 10, 3, padding=1, bias=False)
        self.strided = nn.Conv2d(10, 12, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.unpadded = nn.Conv2d(12, 12, 3)
        self.point = nn.Conv2d(12, 12, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.strided(self.plain(self.wide(image.float() / 255).relu())))
        return self.point(self.unpadded(nn.functional.pad(x, (2, 2, 2, 2))))


def test_layers_of_a_file_are_replaced_where_they_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(winograd, "LEAST_WIDTH", 3)
    monkeypatch.setattr(winograd, "LEAST_KERNELS", 36)
    torch.manual_seed(0)
    network = Layers().eval()
    onnx_file.write_onnx(network, tmp_path / "a.onnx", {}, winograd=True)
    left = [node for node in onnx.load(tmp_path / "a.onnx").graph.node if node.op_type == "Conv"]
    assert len(left) == 4
    session = OnnxSession(tmp_path / "a.onnx")
    for shape in ((1, 3, 40, 56), (2, 3, 33, 17), (3, 3, 5, 6)):
        picture = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.no_grad():
            assert torch.allclose(session(picture), network(picture), atol=1e-4)
