"""What each term sees of a batch in which some pictures have no labels: the one place that decides it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from idd_seg.data.pipeline.options import TeacherLabels
from idd_seg.distributed.collectives import sum_over_ranks
from idd_seg.errors import ConfigError
from idd_seg.losses.ops.position_maps import coordinates
from idd_seg.losses.term import Term
from idd_seg.ops.upsample import confident_chunks, whole_view
from idd_seg.types import Batch, Outputs

Seen = tuple[Outputs, Outputs | None, Batch]


class LabelUse:
    """Gives each term the pictures and labels that it may learn from, by its `label_use`.

    `truth`: the pictures with labels alone. `none`: all pictures; those without labels count with every pixel that is
    no padding. `classes`: all pictures, with the teacher's classes for labels where there are none; or the pictures
    with labels alone, if `use=none`.

    The teacher's classes are those of its highest logits at the labels' resolution, brought there bilinearly, where
    their probability is at least `confidence`. Other pixels, and padding, are ignored.

    Args:
        options: `use` and `confidence`.
        unlabelled: whether some pictures of the batches have no labels.

    Attributes:
        active: whether the teacher's classes may stand in for labels at all.
    """

    def __init__(self, options: TeacherLabels, ignore_index: int, *, unlabelled: bool) -> None:
        self.use, self.confidence, self.ignore_index = options.use, options.confidence, ignore_index
        self.unlabelled = unlabelled
        self.active = self.use == "all" or (self.use == "unlabelled" and unlabelled)

    def of_step(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> StepViews:
        """Return what the terms see of a batch."""
        return StepViews(self, student, teacher, batch)

    def classes_of(self, teacher: Outputs, size: Sequence[int]) -> Tensor:
        """Return the teacher's classes (N, *size) int64; `ignore_index` where it is not confident."""
        return teacher_classes(teacher.logits, size, self.confidence, self.ignore_index)


class StepViews:
    """What the terms see of one batch; each view is made when the first term asks for it.

    Attributes:
        confident: pixels for which the teacher's class was taken, and all for which it was asked; None where it was not
            asked.
    """

    def __init__(self, use: LabelUse, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        self.use = use
        self.whole: Seen = (student, teacher, batch)
        self.confident: tuple[Tensor, Tensor] | None = None
        self._labelled: Seen | None = None
        self._completed: Seen | None = None

    def of(self, term: Term) -> Seen:
        """Return the outputs and the batch that a term is called with."""
        batch = self.whole[2]
        if term.label_use == "none":
            return self.whole
        if term.label_use == "classes" and self.use.active:
            return self.completed()
        return self.whole if batch.labelled is None else self.labelled(batch.labelled)

    def labelled(self, number: int) -> Seen:
        """Return the first so many pictures, which have labels."""
        if self._labelled is None:
            student, teacher, batch = self.whole
            theirs = None if teacher is None else first_of(teacher, number)
            self._labelled = first_of(student, number), theirs, _first_of_batch(batch, number)
        return self._labelled

    def completed(self) -> Seen:
        """Return all pictures, with the teacher's classes where labels are missing."""
        if self._completed is None:
            student, teacher, batch = self.whole
            if teacher is None:
                raise ValueError("the teacher's classes are to stand in for labels, and there is no teacher")
            self._completed = student, teacher, replace(batch, label=self._with_teachers_classes(teacher, batch))
        return self._completed

    def _with_teachers_classes(self, teacher: Outputs, batch: Batch) -> Tensor:
        ignore, size = self.use.ignore_index, batch.label.shape[-2:]
        behind = len(batch.label) if batch.labelled is None else batch.labelled
        first = 0 if self.use.use == "all" else behind  # picture that the teacher is asked of
        label = batch.label.clone()
        # Of pictures without labels the loader has marked the padding alone.
        missing = label[first:] != ignore
        if first < behind:
            inside = on_photograph(batch.box[:behind], size)
            missing[:behind] = (label[:behind] == ignore) & inside
        found = self.use.classes_of(Outputs(teacher.logits[first:], {}), size)
        label[first:] = torch.where(missing, found, label[first:])
        self.confident = (missing & (found != ignore)).sum(), missing.sum()
        return label


def teacher_classes(logits: Tensor, size: Sequence[int], confidence: float, ignore_index: int) -> Tensor:
    """Return the classes (N, *size) int64 of the highest of coarse logits (N, K, h, w), brought to `size` bilinearly.

    Args:
        confidence: least probability of the class; `ignore_index` stands where it is lower.
    """
    if not len(logits):
        return logits.new_zeros((0, *size), dtype=torch.int64)
    parts = []
    for _, ids, probability in confident_chunks([whole_view(logits.detach(), size)], size):
        parts.append(torch.where(probability >= confidence, ids, ignore_index))
    return torch.cat(parts, dim=1)


def on_photograph(box: Tensor, size: Sequence[int]) -> Tensor:
    """Return (N, H, W) bool: which pixels of a crop (see `Batch.box`) lie on the photograph, and not on padding."""
    across, down = coordinates(box, (size[0], size[1]))
    return ((across >= 0) & (across <= 1) & (down >= 0) & (down <= 1))[:, 0]


def first_of(outputs: Outputs, number: int) -> Outputs:
    """Return the outputs of the first so many pictures."""
    auxiliary = None if outputs.auxiliary is None else outputs.auxiliary[:number]
    return Outputs(outputs.logits[:number], {name: x[:number] for name, x in outputs.features.items()}, auxiliary)


def _first_of_batch(batch: Batch, number: int) -> Batch:
    return replace(
        batch,
        image=batch.image[:number],
        label=batch.label[:number],
        box=batch.box[:number],
        names=batch.names[:number],
        views=None if batch.views is None else batch.views[:number],
        colours=None if batch.colours is None else batch.colours[:number],
        labelled=None,
    )


class Agreement:
    """Counts, on held-out pictures, how often the classes of which the teacher is confident are right."""

    def __init__(self) -> None:
        self.counts: Tensor | None = None

    def update(self, found: Tensor, label: Tensor, ignore_index: int) -> None:
        """Add pictures.

        Args:
            found: (N, H, W) the teacher's classes, `ignore_index` where it is not confident; label: the truth.
        """
        judged = label != ignore_index
        confident = judged & (found != ignore_index)
        right = confident & (found == label)
        counts = torch.stack([right.sum(), confident.sum(), judged.sum()])
        self.counts = counts if self.counts is None else self.counts + counts

    def compute(self, device: torch.device) -> dict[str, float]:
        """Return `confident`, the share of the labelled pixels, and `confident_right`, the share of these; start anew.

        All processes must call it.
        """
        counts = torch.zeros(3, dtype=torch.int64, device=device) if self.counts is None else self.counts
        right, confident, judged = sum_over_ranks(counts).tolist()
        self.counts = None
        return {
            "confident": confident / judged if judged else math.nan,
            "confident_right": right / confident if confident else math.nan,
        }


def check_label_use(terms: Mapping[str, Term], options: TeacherLabels, share: float, *, has_teacher: bool) -> None:
    """Refuse pictures without labels, or a teacher's classes in place of labels, from which nothing would be learnt.

    Raises:
        ConfigError: that names the option.
    """
    if options.use == "all" and not has_teacher:
        raise ConfigError("data.teacher_labels.use=all needs a teacher's classes, and teacher=none")
    if not share:
        return
    if not has_teacher:
        raise ConfigError(
            "data.unlabelled needs a teacher to learn from, and teacher=none; leave it out, or choose a teacher"
        )
    taking = ("none",) if options.use == "none" else ("none", "classes")
    if not any(term.label_use in taking for term in terms.values()):
        classes = [name for name, term in terms.items() if term.label_use == "classes"]
        also = f", or data.teacher_labels.use=unlabelled, so that {classes[0]} does" if classes else ""
        raise ConfigError(
            f"data.unlabelled: no term of loss=[{','.join(terms)}] learns from pictures without labels; add one that "
            f"does, e.g. kd{also}"
        )
    bound = [name for name, term in terms.items() if term.label_use not in taking]
    if share == 1 and bound:
        raise ConfigError(
            f"data.unlabelled_share=1 leaves no picture with labels, and loss={','.join(bound)} learns from such alone"
        )
