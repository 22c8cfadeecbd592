"""Folding BatchNorm leaves the function as it is, and refuses what it would change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from idd_seg.models.acceleration.fold_batch_norm import fold_batch_norms
from idd_seg.models.heads.aspp import ASPPHead
from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.segmenter import Segmenter
from idd_seg.types import Outputs


def moved(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give the BatchNorm layers statistics, as a training would."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@pytest.mark.parametrize("head", [PSPHead, ASPPHead])
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv2_100"])
def test_a_folded_network_gives_equal_outputs_without_batch_norm(backbone: str, head: type[nn.Module]) -> None:
    network = moved(Segmenter(backbone, head, 5, auxiliary=False))
    image = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        before = network(image)
        count = norms(network)
        assert fold_batch_norms(network, torch.randn(1, 3, 64, 64)) == count > 20
        after = network(image)
    assert norms(network) == 0
    scale = float(before.logits.abs().max())
    assert float((after.logits - before.logits).abs().max()) < 1e-5 * scale
    for name, features in before.features.items():
        torch.testing.assert_close(after.features[name], features, rtol=1e-4, atol=1e-5 * float(features.abs().max()))


class Shared(nn.Module):
    """One convolution before two BatchNorm layers, one BatchNorm used twice, one before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.one, self.two, self.last = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> Outputs:
        x = self.conv(image)
        y = self.again(self.one(x) + self.two(x))
        return Outputs(self.last(y) + self.last(y.relu()), {})


def test_what_does_not_belong_to_one_convolution_alone_stays() -> None:
    network = moved(Shared())
    assert fold_batch_norms(network, torch.randn(1, 3, 8, 8)) == 0
    assert norms(network) == 3


class Kept(nn.Module):
    """Reads the convolution's output beside the BatchNorm's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> Outputs:
        x = self.conv(image)
        return Outputs(self.norm(x) + x, {})


def test_a_fold_that_would_change_the_function_is_refused() -> None:
    with pytest.raises(RuntimeError, match="differ by"):
        fold_batch_norms(moved(Kept()), torch.randn(1, 3, 8, 8))


def test_in_training_nothing_is_folded() -> None:
    with pytest.raises(ValueError, match="eval"):
        fold_batch_norms(Kept().train(), torch.randn(1, 3, 8, 8))
