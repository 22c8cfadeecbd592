"""Class ids of a picture of any size: windows are shown row by row, and forgotten once the rows below are reached."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from idd_seg.evaluation.inference import Inference, scaled
from idd_seg.ops import upsample
from idd_seg.ops.upsample import Patch

Prepare = Callable[[Tensor], Tensor]


@torch.no_grad()
def class_chunks(
    inference: Inference, network: nn.Module, image: Tensor, size: Sequence[int], prepare: Prepare
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, class ids (N, R, W)) from top to bottom, as `upsample.predict` of `Inference.views` has them.

    Memory beside the picture: the logits of two or three rows of windows, and what the network needs for one window;
    with scales other than 1, a copy of the picture in float32.

    Args:
        image: (N, 3, H, W), in any form that `prepare` takes.
        size: (height, width) of the class ids.
        prepare: from a part of `image` to what the network takes, on its device.
    """
    for views, rows in _bands(inference, network, image, size, prepare):
        yield from upsample.class_chunks(views, size, rows)


@torch.no_grad()
def confident_chunks(
    inference: Inference, network: nn.Module, image: Tensor, size: Sequence[int], prepare: Prepare
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (first row, class ids (N, R, W), their probabilities (N, R, W)); otherwise as `class_chunks`."""
    for views, rows in _bands(inference, network, image, size, prepare):
        yield from upsample.confident_chunks(views, size, rows)


def _bands(
    inference: Inference, network: nn.Module, image: Tensor, size: Sequence[int], prepare: Prepare
) -> Iterator[tuple[list[list[Patch]], tuple[int, int]]]:
    """Yield what is seen of some rows of the picture, and these rows (first, end), from top to bottom."""
    views = [
        _View(inference, network, image, size, prepare, scale, mirror)
        for scale, mirror in itertools.product(inference.scales, (False, True) if inference.flip else (False,))
    ]
    height, first = int(size[0]), 0
    while first < height:
        # As far as no view needs another row of windows.
        end = min(view.advance(first) for view in views)
        yield [view.patches for view in views], (first, end)
        first = end


class _View:
    """The picture at one scale, mirrored or not."""

    def __init__(
        self,
        inference: Inference,
        network: nn.Module,
        image: Tensor,
        size: Sequence[int],
        prepare: Prepare,
        scale: float,
        mirror: bool,
    ) -> None:
        self.network, self.mirror = network, mirror
        self.image, self.prepare = (image, prepare) if scale == 1 else (scaled(prepare(image), scale), _as_it_is)
        height, width = self.image.shape[-2:]
        self.height, self.down, self.across = int(size[0]), size[0] / height, size[1] / width
        rows = itertools.groupby(inference.windows(height, width), key=lambda window: window[0])
        self.waiting = [list(row) for _, row in rows]
        self.patches: list[Patch] = []

    def advance(self, first: int) -> int:
        """Hold all patches that the rows from `first` on need; return the row at which others will be needed."""
        self.patches = [patch for patch in self.patches if patch.box[2] > first]
        while self.waiting and self._begins(self.waiting[0]) <= first:
            self.patches += [self._patch(window) for window in self.waiting.pop(0)]
        return self._begins(self.waiting[0]) if self.waiting else self.height

    def _begins(self, row: list[tuple[int, int, int, int]]) -> int:
        """Return the first row of the picture whose pixels' centres lie in a row of windows."""
        return max(0, math.ceil(row[0][0] * self.down - 0.5))

    def _patch(self, window: tuple[int, int, int, int]) -> Patch:
        top, left, bottom, right = window
        part = self.prepare(self.image[..., top:bottom, left:right])
        logits = self.network(part.flip(-1) if self.mirror else part).logits
        box = (top * self.down, left * self.across, bottom * self.down, right * self.across)
        return Patch(logits.flip(-1) if self.mirror else logits, box)


def _as_it_is(image: Tensor) -> Tensor:
    return image
