"""Logits at the labels' resolution, band by band: neither those of full size nor their gradient exist as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.grid import no_autocast

# Numbers of a band's logits: 32 MB, and 128 MB on a GPU, which waits for the launches of many small ones.
BAND = {"cpu": 2**23, "cuda": 2**25}


class Bands:
    """The rows of full size that coarse logits are brought to, bilinearly, as `interpolate` with align_corners=False.

    Args:
        logits: (N, K, h, w) in float32 or float64; size: (H, W); band: numbers of full-size logits at a time, at least
            one row's; None chooses by the device.
    """

    def __init__(self, logits: Tensor, size: Sequence[int], band: int | None = None) -> None:
        self.logits = logits
        self.rows, self.columns = (weights(*sides, logits) for sides in zip(size, logits.shape[-2:], strict=True))
        images, classes = logits.shape[:2]
        chosen = band or BAND.get(logits.device.type, 2**25)
        self.each = max(1, chosen // (images * classes * size[1]))

    def log_probabilities(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the rows of each band, and the log-probabilities (N, K, rows, W) of its pixels."""
        height, width = len(self.rows), len(self.columns)
        for top in range(0, height, self.each):
            band = slice(top, min(top + self.each, height))
            with no_autocast(self.logits), full_precision():
                # Along the rows first, where there are few; then each row by itself.
                narrow = torch.matmul(self.rows[band], self.logits)
                scores = F.log_softmax(widened(narrow, width), 1)
            yield band, scores

    def gathered(self, band: slice, slope: Tensor) -> Tensor:
        """Return the gradient (N, K, h, w) of the coarse logits by that of a band's (N, K, rows, W)."""
        with no_autocast(self.logits), full_precision():
            return torch.matmul(self.rows[band].mT, torch.matmul(slope, self.columns))


def weights(pixels: int, cells: int, like: Tensor) -> Tensor:
    """Return the matrix (pixels, cells) that interpolates linearly along one side."""
    unit = torch.eye(cells, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(unit, size=pixels, mode="linear", align_corners=False)[0].mT.contiguous()


def widened(narrow: Tensor, width: int) -> Tensor:
    """Bring (N, K, rows, w) to (N, K, rows, width)."""
    if narrow.shape[-1] == width:
        return narrow
    return F.interpolate(narrow, size=(narrow.shape[-2], width), mode="bilinear", align_corners=False)


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep products in float32 where TF32 is allowed: they interpolate."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
