"""Class ids at full size from coarse logits, band by band: a full-size logit tensor never exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Of one class in a band, so that a few such planes stay in a core's cache.
PLANE = 2**18
# Of all classes in a band, where they have to stand side by side.
BLOCK = 2**23


@dataclass(frozen=True)
class Patch:
    """Coarse logits of a part of a picture.

    Attributes:
        logits: (N, K, h, w).
        box: top, left, bottom, right in pixels of the picture; fractions are allowed.
    """

    logits: Tensor
    box: tuple[float, float, float, float]


View = Sequence[Patch]  # patches that cover the picture; where they overlap, their mean counts


def whole_view(logits: Tensor, size: Sequence[int]) -> list[Patch]:
    """Return the view of logits (N, K, h, w) that belong to a whole picture of `size`."""
    return [Patch(logits, (0.0, 0.0, float(size[0]), float(size[1])))]


def predict(views: Sequence[View], size: Sequence[int]) -> Tensor:
    """Return the class ids (N, H, W) int64 of a picture of `size`; see `class_chunks`."""
    return torch.cat([ids.long() for _, ids in class_chunks(views, size)], dim=1)


def class_chunks(
    views: Sequence[View], size: Sequence[int], rows: tuple[int, int] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, class ids (N, R, W)) from top to bottom; of the picture's `rows` (first, end) alone, if given.

    Logits are brought to the picture's pixels bilinearly (as `interpolate` with align_corners=False does for a patch
    that covers the picture). Within a view, overlapping patches are averaged as logits; several views (scales, mirror
    images) are averaged as probabilities. Of equal scores the lowest class wins.

    Memory beside the logits: a few planes of 2^18 pixels for one view of one patch, else about 2^23 numbers,
    whatever the size of the picture and the number of classes (but at least one row).
    """
    height, width = int(size[0]), int(size[1])
    classes = views[0][0].logits.shape[1]
    images = views[0][0].logits.shape[0]
    alone = len(views) == 1 and len(views[0]) == 1
    # A GPU takes all classes of a band in one kernel; a core takes one class after the other, within its cache.
    lean = alone and not views[0][0].logits.is_cuda
    each = max(1, (PLANE if lean else BLOCK // classes) // (width * images))
    first, end = rows or (0, height)
    for top in range(first, end, each):
        bottom = min(end, top + each)
        if lean:
            yield top, _highest(_class_planes(views[0][0], top, bottom, width), classes)
        else:
            yield top, _scores(views, top, bottom, width).max(dim=1).indices


def confident_chunks(
    views: Sequence[View], size: Sequence[int], rows: tuple[int, int] | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (first row, class ids (N, R, W) int64, their probabilities (N, R, W)); otherwise as `class_chunks`."""
    height, width = int(size[0]), int(size[1])
    images, classes = views[0][0].logits.shape[:2]
    each = max(1, BLOCK // classes // (width * images))
    first, end = rows or (0, height)
    for top in range(first, end, each):
        scores = _scores(views, top, min(end, top + each), width)
        best, ids = scores.max(dim=1)
        if len(views) == 1:  # logits
            best = (best - scores.logsumexp(dim=1)).exp()
        yield top, ids, best


def _highest(plane: Callable[[int], Tensor], classes: int) -> Tensor:
    """Return for each pixel the class whose plane is the highest: a running maximum, several times `argmax`'s speed."""
    best = plane(0)
    # Classes come in ascending order, so the last one that rose above the best is the largest id written.
    ids = torch.zeros_like(best, dtype=torch.uint8 if classes <= 256 else torch.int16)
    for k in range(1, classes):
        scores = plane(k)
        torch.maximum(ids, (scores > best).to(ids.dtype) * k, out=ids)
        torch.maximum(best, scores, out=best)
    return ids


def _scores(views: Sequence[View], top: int, bottom: int, width: int) -> Tensor:
    """Return the scores (N, K, R, W) of a band: logits of a single view, else the mean probabilities of all."""
    if len(views) == 1:
        return _mean_logits(views[0], top, bottom, width)
    total = _mean_logits(views[0], top, bottom, width).softmax(1)
    for view in views[1:]:
        total += _mean_logits(view, top, bottom, width).softmax(1)
    return total.div_(len(views))


def mean_logits(view: View, size: Sequence[int]) -> Tensor:
    """Return the logits (N, K, H, W) of a view at full size, all at once; for small pictures and tests."""
    return _mean_logits(view, 0, int(size[0]), int(size[1]))


def _mean_logits(view: View, top: int, bottom: int, width: int) -> Tensor:
    first = view[0].logits
    total = first.new_zeros(first.shape[0], first.shape[1], bottom - top, width, dtype=_precision(first))
    count = first.new_zeros(bottom - top, width, dtype=total.dtype)
    for patch in view:
        rows, columns = _Span.of(patch, 0, top, bottom), _Span.of(patch, 1, 0, width)
        if rows.empty or columns.empty:
            continue
        place = (slice(rows.start - top, rows.stop - top), slice(columns.start, columns.stop))
        total[(..., *place)] += rows.blend(_wide(patch, rows, columns), 2, rows.cells.start)
        count[place] += 1
    return total.div_(count)


def _class_planes(patch: Patch, top: int, bottom: int, width: int) -> Callable[[int], Tensor]:
    """Return a function from class to its logits (N, R, W) in a band of a picture that the patch covers."""
    rows, columns = _Span.of(patch, 0, top, bottom), _Span.of(patch, 1, 0, width)
    cells = patch.logits[:, :, rows.cells]

    def plane(k: int) -> Tensor:
        # First along the rows, where there are few; a row of the picture then is a mean of two of these.
        wide = columns.blend(cells[:, k].to(_precision(cells)), 2)
        return rows.blend(wide, 1, rows.cells.start)

    return plane


def _precision(x: Tensor) -> torch.dtype:
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32


@dataclass(frozen=True)
class _Span:
    """The pixels start..stop along one side whose centres lie in a patch, and the two cells that each lies between."""

    start: int
    stop: int
    before: Tensor  # (R,) int64
    after: Tensor
    share: Tensor  # (R,) of `after`, 0 to 1
    cells: slice  # all that are needed

    @classmethod
    def of(cls, patch: Patch, side: int, low: int, high: int) -> _Span:
        near, far = patch.box[side], patch.box[side + 2]
        cells = patch.logits.shape[2 + side]
        pixels = torch.arange(low, high, dtype=torch.float64) + 0.5
        inside = pixels[(pixels >= near) & (pixels < far)]
        start = int(inside[0]) if len(inside) else low
        at = ((inside - near) * (cells / (far - near)) - 0.5).clamp(0, cells - 1)
        before = at.floor().long()
        after = (before + 1).clamp(max=cells - 1)
        share = (at - before).to(_precision(patch.logits))
        needed = slice(int(before[0]), int(after[-1]) + 1) if len(inside) else slice(0, 0)
        device = patch.logits.device
        return cls(start, start + len(inside), before.to(device), after.to(device), share.to(device), needed)

    @property
    def empty(self) -> bool:
        return self.start == self.stop

    def blend(self, x: Tensor, side: int, first: int = 0) -> Tensor:
        """Bring `x`, which begins at cell `first`, to these pixels along a dimension: means of two cells each."""
        share = self.share.view(-1, *[1] * (x.dim() - 1 - side))
        return torch.lerp(x.index_select(side, self.before - first), x.index_select(side, self.after - first), share)


def _wide(patch: Patch, rows: _Span, columns: _Span) -> Tensor:
    """Return the rows of cells that a band needs, in full width: (N, K, few, W)."""
    logits = patch.logits[:, :, rows.cells]
    return columns.blend(logits.to(_precision(logits)), 3)
