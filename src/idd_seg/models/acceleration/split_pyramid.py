"""Pyramid pooling whose convolution takes the pooled maps cell by cell: the same function by fewer operations.

A PSP head enlarges maps of 1 to 36 cells to the size of the last level, and runs a 3 x 3 convolution over all of them
and that level: half of its products see nothing but enlarged cells. Enlarging and convolving are both linear. So each
cell is multiplied by the nine weights first, and the products are spread over the map by one small matrix, whose
columns are the bilinear weights of a cell as each of the nine taps meets them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.models.heads.psp import PSPHead

TAPS = 3  # a side of the convolution


class SplitPyramid(nn.Module):
    """A PSP head in evaluation mode, in two parts: the last level's, and the cells'.

    Args:
        head: gives the weights; what follows its convolution (normalisation, activation) is kept as it is.

    Raises:
        ValueError: in training mode, whose weights change.
    """

    def __init__(self, head: PSPHead) -> None:
        super().__init__()
        if head.training:
            raise ValueError("only a head in evaluation mode can be split: call .eval() first")
        self.channels = head.channels
        self.branches = head.branches
        convolution, *rest = head.fuse
        assert isinstance(convolution, nn.Conv2d)
        last = convolution.in_channels - sum(head.widths)
        self.bins = head.bins
        self.rest = nn.Sequential(*rest)
        self.level = nn.Conv2d(last, self.channels, TAPS, padding=TAPS // 2, bias=convolution.bias is not None)
        self.level.weight = nn.Parameter(convolution.weight[:, :last].clone(), requires_grad=False)
        self.level.bias = convolution.bias
        # (out, in, 3, 3) -> (out * 9, in): what a cell adds to each of the nine places around it.
        parts = torch.split(convolution.weight[:, last:], head.widths, dim=1)
        self.cells = nn.ParameterList(
            nn.Parameter(part.permute(0, 2, 3, 1).flatten(0, 2).contiguous(), requires_grad=False) for part in parts
        )
        self._spread: dict[tuple[int, int, torch.dtype, torch.device], Tensor] = {}

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the last one's grid."""
        x = maps[-1]
        height, width = x.shape[-2:]
        # (out * 9, in) @ (N, in, cells) -> (N, out, 9 * cells)
        products = [
            (weight @ branch(x).flatten(2)).view(len(x), self.channels, -1)
            for branch, weight in zip(self.branches, self.cells, strict=True)
        ]
        # (N, out, 450) @ (450, h * w), for the usual 50 cells
        spread = torch.cat(products, 2) @ self._spread_of(height, width, x)
        return self.rest(self.level(x).add_(spread.view(len(x), self.channels, height, width)))  # type: ignore[no-any-return]

    def _spread_of(self, height: int, width: int, like: Tensor) -> Tensor:
        key = height, width, like.dtype, like.device
        if key not in self._spread:
            parts = [spread_matrix(bins, height, width) for bins in self.bins]
            self._spread = {key: torch.cat(parts).to(like)}  # of one size: training sees no other
        return self._spread[key]


def spread_matrix(bins: int, height: int, width: int) -> Tensor:
    """Return the share (9 * bins**2, height * width) of each tap at each cell in each place of the map."""
    rows, columns = _bilinear(bins, height), _bilinear(bins, width)
    # (tap y, tap x, cell y, cell x, y, x)
    return torch.einsum("auy,bvx->abuvyx", rows, columns).reshape(TAPS**2 * bins**2, height * width)


def _bilinear(bins: int, side: int) -> Tensor:
    """Return (3, bins, side): the weight of each cell at each place, seen through each tap; nothing beyond the map."""
    enlarged = F.interpolate(torch.eye(bins, dtype=torch.float64)[None], size=side, mode="linear", align_corners=False)[
        0
    ]
    padded = F.pad(enlarged, (TAPS // 2, TAPS // 2))
    return torch.stack([padded[:, tap : tap + side] for tap in range(TAPS)])


def split_pyramids(network: nn.Module) -> int:
    """Replace each PSP head of a network in evaluation mode, in place; return their number."""
    found = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    heads = [(parent, name, child) for parent, name, child in found if isinstance(child, PSPHead)]
    for parent, name, head in heads:
        setattr(parent, name, SplitPyramid(head))
    return len(heads)
