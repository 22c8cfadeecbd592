"""Cross-image relations: how similar a pixel is to all pixels of each image of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.adapters import MapTerm, comparable, unit
from idd_seg.losses.ops.grid import no_autocast
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.ops.validation import require_above, require_whole
from idd_seg.types import Batch, Outputs

# Similarities held at once in one map; 8 MB in float32.
ENTRIES = 2**21
# Similarities of one pair of images, of both networks, that are kept for the second pass; 134 MB in float32.
KEPT = 2**25


def _check_options(temperature: float, pool: int, entries: int) -> None:
    require_above("temperature", temperature, 0)
    require_whole("pool", pool, 1)
    require_whole("entries", entries, 1)


class _Divergence(torch.autograd.Function):
    """Sum over pairs of images and positions of the divergence, and its gradient in the same pass.

    Autograd would keep every chunk's similarities, (N P)^2 in all, or compute them twice. The gradient of a row's
    divergence with respect to its similarities is known before they are dropped: (softmax_s - softmax_t) / T. Images
    (a, b) and (b, a) have the same similarities, read by rows and by columns: each is computed once.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float, entries: int) -> Tensor:
        gradient = torch.zeros_like(student) if ctx.needs_input_grad[0] else None
        rows = max(1, entries // student.shape[1])
        # The similarities of scaled vectors come divided by the temperature.
        scaled = student / temperature, teacher / temperature
        total = student.new_zeros(())
        for a in range(len(student)):
            for b in range(a, len(student)):
                pairs = [_Pair(x[a], y[b], rows) for x, y in zip(scaled, (student, teacher), strict=True)]
                for chunk, divergence, error in _by_rows(*pairs, same=a == b):
                    total += divergence
                    if gradient is not None:
                        gradient[a, chunk].addmm_(error, student[b], alpha=1 / temperature)
                        if a != b:
                            gradient[b].addmm_(error.T, student[a, chunk], alpha=1 / temperature)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of cross_image can't be differentiated again")
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None


class _Pair:
    """The similarities (P, P) between the positions of two images, some rows at a time; kept where they are few."""

    def __init__(self, scaled: Tensor, others: Tensor, rows: int) -> None:
        self.scaled, self.others = scaled, others
        self.chunks = [slice(start, start + rows) for start in range(0, len(scaled), rows)]
        self.keeps = 2 * len(scaled) ** 2 <= KEPT
        self.kept: list[Tensor] = []

    def take(self, i: int) -> Tensor:
        """Return the rows of chunk i; they may be overwritten."""
        if self.kept:
            return self.kept[i]
        return torch.mm(self.scaled[self.chunks[i]], self.others.T)

    def normalisers(self, same: bool) -> tuple[Tensor, Tensor]:
        """Logarithms of the sums of exponentials, by row and by column; of an image with itself they are the same."""
        rows, columns = [], self.scaled.new_full((len(self.others),), -torch.inf)
        made = []
        for i in range(len(self.chunks)):
            similarity = self.take(i)
            rows.append(similarity.logsumexp(1))
            if not same:
                columns = torch.logaddexp(columns, similarity.logsumexp(0))
            if self.keeps:
                made.append(similarity)
        self.kept = made
        by_row = torch.cat(rows)
        return by_row, by_row if same else columns


def _by_rows(ours: _Pair, theirs: _Pair, *, same: bool) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Go through the rows: their place, their divergence, and softmax_s - softmax_t summed over both readings."""
    (rows_s, columns_s), (rows_t, columns_t) = ours.normalisers(same), theirs.normalisers(same)
    for i, chunk in enumerate(ours.chunks):
        similar_s, similar_t = ours.take(i), theirs.take(i)
        divergence, error = _compare(similar_s - rows_s[chunk, None], similar_t - rows_t[chunk, None])
        back, error_back = _compare(similar_s.sub_(columns_s), similar_t.sub_(columns_t))
        # An image with itself is one pair, but each vector stands in it as row and as column.
        yield chunk, divergence if same else divergence + back, error.add_(error_back)


def _compare(log_s: Tensor, log_t: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of p_t (log p_t - log p_s), and p_s - p_t; the arguments are overwritten."""
    target = log_t.exp()
    divergence = log_t.sub_(log_s).mul_(target).sum()
    return divergence, log_s.exp_().sub_(target)


def _vectors(features: Tensor, pool: int) -> Tensor:
    """Unit vectors (N, P, C) of all positions."""
    if pool > 1:
        features = F.avg_pool2d(features, pool, ceil_mode=True)
    return unit(features.flatten(2), dim=1).transpose(1, 2).contiguous()


def cross_image(
    student: Tensor, teacher: Tensor, *, temperature: float, pool: int = 1, entries: int = ENTRIES
) -> Tensor:
    r"""Mean divergence between the teacher's and the student's similarities of pixels across images.

    .. math:: \frac{1}{N^2 P} \sum_{i,j} \sum_p \mathrm{KL}\big(
              \mathrm{softmax}_q(\cos(t_{ip}, t_{jq}) / T) \,\|\, \mathrm{softmax}_q(\cos(s_{ip}, s_{jq}) / T)\big)

    over all ordered pairs (i, j) of images, also i = j, as in the authors' code: a batch of one image has a pair too.
    C. Yang et al., "Cross-image relational knowledge distillation for semantic segmentation", CVPR 2022, its mini-batch
    part. With several processes, pairs lie within the images of each.

    Beside the features, memory holds some maps of `entries` similarities at a time, and, up to P = 4096, the P^2 of one
    pair of images; beyond that similarities are computed twice. The gradient can't be differentiated again.

    Args:
        student: features (N, Cs, h, w).
        teacher: features (N, Ct, h', w'), brought to (h, w) bilinearly where the grids differ; the widths may differ;
            takes no gradient.
        temperature: T > 0; the authors use 0.1.
        pool: positions are means over pool x pool cells, fewer at the far border; 1 takes every cell.
        entries: similarities handled at once, at least one row of P.

    Returns:
        A scalar in float32. A position of zeros is equally similar to all.

    Raises:
        ValueError: if the temperature is not positive, or pool or entries is below 1.
    """
    _check_options(temperature, pool, entries)
    student, teacher = comparable(student, teacher)
    ours, theirs = _vectors(student, pool), _vectors(teacher, pool)
    images, positions = ours.shape[:2]
    with no_autocast(ours):
        total: Tensor = _Divergence.apply(ours, theirs, temperature, entries)
    return total / (images**2 * positions)


class CrossImage(MapTerm):
    """`cross_image` of the maps named `tap`.

    Raises:
        ValueError: for a negative weight, an option out of range, or a tap that a network does not give.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.1,
        pool: int = 1,
        entries: int = ENTRIES,
        tap: str = "head",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule)
        _check_options(temperature, pool, entries)
        self.temperature, self.pool, self.entries = float(temperature), pool, entries

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        ours, theirs = self.maps(student, teacher)
        return cross_image(ours, theirs, temperature=self.temperature, pool=self.pool, entries=self.entries)
