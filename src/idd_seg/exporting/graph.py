"""The student as one function from a picture to logits of its size: what is written to files."""

from __future__ import annotations

import copy
from fractions import Fraction

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from idd_seg.checkpoints.data_card import DataCard, Normalise
from idd_seg.checkpoints.exported_folder import probe
from idd_seg.exporting.same_padding import AnySizeSameConv
from idd_seg.models.acceleration.fold_batch_norm import fold_batch_norms
from idd_seg.models.segmenter import Segmenter


class Deployed(nn.Module):
    """Scaling, normalisation, network, and logits at the picture's size.

    Args:
        network: in evaluation mode.
        card: what the network was trained on.
        half: compute the network in float16; scaling, normalisation and enlargement stay in float32.
    """

    def __init__(self, network: nn.Module, card: DataCard, half: bool = False) -> None:
        super().__init__()
        self.normalise, self.half_precision = Normalise(card), half
        self.network = network.half() if half else network
        self.scale = Fraction(card.image_scale).limit_denominator(1000)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W), RGB 0 to 255 or as the card says, whole numbers or float -> (N, K, H, W) float32 logits."""
        height, width = image.shape[-2:]
        picture = image.float()
        if self.scale != 1:
            size = [self._scaled(height), self._scaled(width)]
            picture = F.interpolate(picture, size=size, mode="bilinear", align_corners=False)
        picture = self.normalise(picture)
        logits = self.network(picture.half() if self.half_precision else picture).logits
        return F.interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)

    def _scaled(self, side: int) -> int:
        """Scale a side in whole numbers: sizes are unknown while the graph is written."""
        top, bottom = self.scale.numerator, self.scale.denominator
        return torch.sym_max(1, (2 * side * top + bottom) // (2 * bottom))  # type: ignore[return-value]


class AnySizePool(nn.Module):
    """`AdaptiveAvgPool2d` as two products with matrices that are computed from the size, so that it may be any.

    Cell i of b averages the rows floor(i h / b) to ceil((i + 1) h / b) - 1 of h, and the columns alike.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, rows, columns)."""
        height, width = x.shape[-2:]
        across = torch.matmul(x, _means(self.columns, width).to(x.dtype).t())
        return torch.matmul(_means(self.rows, height).to(x.dtype), across)


def _means(cells: int, length: int) -> Tensor:
    """Return (cells, length): row i averages the entries of cell i."""
    index, entries = torch.arange(cells).unsqueeze(1), torch.arange(length).unsqueeze(0)
    start, end = (index * length) // cells, ((index + 1) * length + cells - 1) // cells
    inside = (entries >= start) & (entries < end)
    return inside.float() / (end - start)


def deployable(network: Segmenter) -> Segmenter:
    """Return a copy without auxiliary head whose BatchNorms are folded away."""
    folded = copy.deepcopy(network).eval()
    folded.auxiliary = None
    fold_batch_norms(folded, probe(folded))
    return folded.requires_grad_(False)


def of_any_size(network: nn.Module) -> nn.Module:
    """Return a copy whose adaptive poolings and "same" paddings can be written for any size."""
    changed = copy.deepcopy(network)
    for parent in list(changed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d) and (cells := _cells(child)) is not None:
                setattr(parent, name, AnySizePool(*cells))
            elif isinstance(child, Conv2dSame):
                setattr(parent, name, AnySizeSameConv(child))
    return changed


def _cells(pool: nn.AdaptiveAvgPool2d) -> tuple[int, int] | None:
    """Return the cells of a pooling; None for the mean over all, which files can say for any size."""
    size = pool.output_size
    rows, columns = size if isinstance(size, tuple) else (size, size)
    return None if rows == columns == 1 or rows is None or columns is None else (rows, columns)
