"""Relations to other images' pixels and regions, that queues of the teacher's embeddings remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.adapters import LOGITS, AdaptedTerm, MapTerm, comparable, require_equal_widths, unit
from idd_seg.losses.ops.class_queues import ClassQueues, draw
from idd_seg.losses.ops.grid import as_float32, nearest_labels, no_autocast
from idd_seg.losses.ops.prototypes import class_means
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.ops.validation import require_above, require_at_least, require_whole
from idd_seg.types import Batch, Outputs

# Similarities held at once in one map; 8 MB in float32.
SIMILARITIES = 2**21
# In place of the similarity to an entry that does not exist: its probability is exactly 0, its logarithm finite.
ABSENT = -1e4


def _log_rows(rows: Tensor, entries: Tensor, absent: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (r, E) of some rows against the entries."""
    similarity = torch.mm(rows, entries.T).div_(temperature)
    return F.log_softmax(similarity.masked_fill_(absent, ABSENT), dim=1)


class _EntryDivergence(torch.autograd.Function):
    """Weighted sum over rows of the divergence, and its gradient (softmax_s - softmax_t) / T in the same pass."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        entries: Tensor,
        absent: Tensor,
        weight: Tensor,
        temperature: float,
        rows: int,
    ) -> Tensor:
        total = student.new_zeros(())
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        for start in range(0, len(student), rows):
            chunk = slice(start, start + rows)
            log_s = _log_rows(student[chunk], entries, absent, temperature)
            log_t = _log_rows(teacher[chunk], entries, absent, temperature)
            target = log_t.exp()
            total += log_t.sub_(log_s).mul_(target).sum(1).mul_(weight[chunk]).sum()
            if gradient is not None:
                error = log_s.exp_().sub_(target).mul_(weight[chunk, None])
                torch.mm(error, entries, out=gradient[chunk])
        if gradient is not None:
            ctx.save_for_backward(gradient.div_(temperature))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of entry_divergence can't be differentiated again")
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None, None, None, None


def entry_divergence(
    student: Tensor,
    teacher: Tensor,
    entries: Tensor,
    exists: Tensor,
    counted: Tensor,
    *,
    temperature: float,
    similarities: int = SIMILARITIES,
) -> Tensor:
    r"""Mean divergence between the teacher's and the student's similarities to the same entries.

    .. math:: \frac{1}{|A|} \sum_{a \in A} \mathrm{KL}\big(
              \mathrm{softmax}_e(\cos(t_a, e) / T) \,\|\, \mathrm{softmax}_e(\cos(s_a, e) / T)\big)

    Beside the vectors, memory holds four maps of `similarities` at a time; the gradient can't be differentiated again.

    Args:
        student: (A, C).
        teacher: (A, C); takes no gradient.
        entries: (E, C), any floating type; take no gradient.
        exists: (E,) bool, entries that there are.
        counted: (A,) bool, vectors that take part.
        similarities: held at once, at least one row of E.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, without entries or vectors. A vector of zeros is
        equally similar to all.

    Raises:
        ValueError: if the widths differ.
    """
    require_equal_widths(student, teacher)
    require_equal_widths(student, entries)
    ours = unit(as_float32(student), dim=1)
    theirs, known = (unit(x.detach().to(ours.dtype), dim=1) for x in (teacher, entries))
    weight = counted.to(ours.dtype) / counted.sum().clamp(min=1)
    rows = max(1, similarities // max(1, len(entries)))
    with no_autocast(ours):
        loss: Tensor = _EntryDivergence.apply(ours, theirs, known, ~exists, weight, temperature, rows)
    return loss


def classes_of(labels: Tensor, size: torch.Size, num_classes: int, ignore_index: int) -> Tensor:
    """Classes (N, P) of the positions of a grid, `num_classes` where there is none."""
    sampled = nearest_labels(labels, size).flatten(1)
    known = (sampled >= 0) & (sampled < num_classes) & (sampled != ignore_index)
    return torch.where(known, sampled, num_classes)


def vectors_at(x: Tensor, index: Tensor) -> Tensor:
    """Vectors (A, C) of a map (N, C, h, w) at positions (A,) counted through all images."""
    positions = x.shape[-2] * x.shape[-1]
    return x.flatten(2)[index // positions, :, index % positions]


class CrossImageMemory(AdaptedTerm):
    r"""`entry_divergence` of the maps' pixels against queues of the teacher's pixels, and of its regions.

    .. math:: w_{pixel} \, L(\text{pixel entries}) + w_{region} \, L(\text{region entries})

    C. Yang et al., "Cross-image relational knowledge distillation for semantic segmentation", CVPR 2022, its memory
    part. An entry is a unit vector: of a pixel of the class, or the mean of the unit vectors of the class's pixels in
    an image, brought to length 1. The student comes to the teacher's width by a 1 x 1 adapter, trained with it.

    The queues are filled after the loss, in training mode, with what all ranks saw. They are kept on the device and in
    checkpoints: `2 * num_classes * (pixel_queue + region_queue) * width` bytes, by default and at width 512 29 MB for
    19 classes and 230 MB for 150 (the authors' 20000 pixels a class would be 3 GB in this precision).

    Args:
        pixel_weight, region_weight: the authors use 0.1 and 0.1; a part of weight 0 has no queue.
        pixel_queue, region_queue: entries of a class.
        pixels_per_class: pixels of a class that enter its queue from an image, drawn at random.
        contrast_pixels, contrast_regions: entries of a class that take part in a step, drawn at random.
        anchors: positions of the student that take part in a step, over the batch, drawn at random; None takes all.
        temperature: T > 0; the authors use 0.1.
        tap, always: see `MapTerm` and `AdaptedTerm`.
        ignore_index: label of pixels that take no part.

    Raises:
        ValueError: for an option out of range, or a tap that a network does not give.
    """

    label_use = "classes"

    def __init__(
        self,
        num_classes: int,
        weight: float = 1.0,
        pixel_weight: float = 0.1,
        region_weight: float = 0.1,
        pixel_queue: int = 1000,
        region_queue: int = 500,
        pixels_per_class: int = 16,
        contrast_pixels: int = 64,
        contrast_regions: int = 16,
        anchors: int | None = 2048,
        temperature: float = 0.1,
        tap: str = "head",
        always: bool = False,
        ignore_index: int = 255,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, always, schedule)
        _check_weights(pixel_weight=pixel_weight, region_weight=region_weight)
        _check_numbers(pixel_queue=pixel_queue, region_queue=region_queue, pixels_per_class=pixels_per_class)
        _check_numbers(contrast_pixels=contrast_pixels, contrast_regions=contrast_regions)
        if anchors is not None:
            _check_numbers(anchors=anchors)
        require_above("temperature", temperature, 0)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.pixels_per_class, self.anchors, self.temperature = pixels_per_class, anchors, float(temperature)
        self.weights = {"pixel": float(pixel_weight), "region": float(region_weight)}
        self.lengths = {"pixel": pixel_queue, "region": region_queue}
        self.contrasts = {"pixel": contrast_pixels, "region": contrast_regions}
        for kind, contrast in self.contrasts.items():
            if contrast > self.lengths[kind]:
                raise ValueError(f"contrast_{kind}s={contrast} must be at most {kind}_queue={self.lengths[kind]}")
        self.queues = torch.nn.ModuleDict()

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        super().bind(student_channels, teacher_channels)
        width = self.num_classes if self.tap == LOGITS else teacher_channels[self.tap]
        for kind, weight in self.weights.items():
            if weight > 0:
                self.queues[kind] = ClassQueues(self.num_classes, self.lengths[kind], width)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        ours, theirs = MapTerm.maps(self, student, teacher)
        loss = self._loss(*comparable(ours, theirs), batch.label)
        if self.training:
            self._remember(as_float32(theirs.detach()), batch.label)
        return loss

    def _queues(self) -> dict[str, ClassQueues]:
        return {kind: queue for kind, queue in self.queues.items() if isinstance(queue, ClassQueues)}

    def _loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        counted = classes_of(labels, student.shape[-2:], self.num_classes, self.ignore_index).flatten()
        counted = counted < self.num_classes
        index = self._anchors(counted)
        # Of the student's map the anchors alone pass through the adapter.
        ours = self.adapter(vectors_at(student, index)[..., None, None]).flatten(1)
        theirs = vectors_at(teacher, index)
        losses = [
            self.weights[kind]
            * entry_divergence(
                ours, theirs, *queue.sample(self.contrasts[kind]), counted[index], temperature=self.temperature
            )
            for kind, queue in self._queues().items()
        ]
        return torch.stack(losses).sum()

    def _anchors(self, counted: Tensor) -> Tensor:
        """Draw positions that count; others fill up where there are too few."""
        if self.anchors is None or self.anchors >= len(counted):
            return torch.arange(len(counted), device=counted.device)
        keys = torch.rand(len(counted), device=counted.device).masked_fill_(~counted, 2.0)
        return keys.topk(self.anchors, largest=False, sorted=False).indices

    @torch.no_grad()
    def _remember(self, teacher: Tensor, labels: Tensor) -> None:
        """Push the teacher's pixels and regions, on its own grid."""
        queues = self._queues()
        if "pixel" in queues:
            classes = classes_of(labels, teacher.shape[-2:], self.num_classes, self.ignore_index)
            index, found = draw(classes, self.num_classes, self.pixels_per_class)
            queues["pixel"].push(unit(vectors_at(teacher, index), dim=1), found)
        if "region" in queues:
            means, pixels = class_means(unit(teacher, dim=1), labels, self.num_classes, ignore_index=self.ignore_index)
            ids = torch.arange(self.num_classes, device=labels.device)
            found = torch.where(pixels > 0, ids, self.num_classes)
            queues["region"].push(unit(means, dim=2).flatten(0, 1), found.flatten())


def _check_weights(**weights: float) -> None:
    for name, value in weights.items():
        require_at_least(name, value, 0)
    if not any(weights.values()):
        raise ValueError(f"one of {', '.join(weights)} must be > 0; to leave the term out, set its weight to 0")


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        require_whole(name, value, 1)
