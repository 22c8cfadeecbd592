"""The base of every term of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor, nn

from idd_seg.losses.ops.class_weights import ClassCounts
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.ops.validation import require_at_least
from idd_seg.types import Batch, Outputs


class Term(nn.Module):
    """One summand of the training loss, called by the Distiller at every step.

    A subclass implements `forward` by a pure function of tensors. Whatever it must learn beside the student (an
    adapter) is a plain submodule and is trained with the student; whatever it trains by itself (a probe, a
    discriminator) has `requires_grad=False` parameters and takes its own optimizer steps in `update`.

    Args:
        weight: factor of the term in the loss, finite and >= 0.
        schedule: of the weight over the run; None keeps it constant.

    Raises:
        ValueError: if the weight is negative or not finite.
    """

    needs_teacher: ClassVar[bool] = True
    # What the term reads of the labels, which says what it does with a picture without any: "none" takes the picture
    # as it is, "classes" takes the teacher's classes in place of labels, "truth" leaves the picture out.
    label_use: ClassVar[Literal["none", "classes", "truth"]] = "classes"

    def __init__(self, weight: float = 1.0, schedule: WeightSchedule | None = None) -> None:
        super().__init__()
        require_at_least("weight", weight, 0)
        self.weight = float(weight)
        self.schedule = schedule or WeightSchedule()

    @property
    def teacher_maps(self) -> Sequence[str]:
        """Names of the teacher's feature maps that the term reads, beside the logits."""
        return ()

    def weight_at(self, step: int) -> float:
        """Return the weight at an optimizer step; at 0 the Distiller does not call the term at all."""
        return self.weight * self.schedule.factor(step)

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        """Build what depends on the widths of the feature maps, once, before the optimizer exists."""

    def bind_classes(self, num_classes: int, counts: Callable[[], ClassCounts]) -> None:
        """Take what depends on the classes of the training split, once; `counts` reads its labels when it is called."""

    def update(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        """Take the term's own optimizer steps; called before `forward` at every training step."""

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        """Return the unweighted loss, a scalar in float32."""
        raise TypeError(f"{type(self).__name__} does not implement forward")

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return scalars that tell, on held-out images, whether the term reaches its aim."""
        return {}

    def keep(self, folder: Path) -> None:
        """Write what a later run may load (a trained probe) into the run folder."""


def require_tap(taps: Mapping[str, object], tap: str) -> None:
    """Raise a ValueError that names the feature maps at hand if `tap` is not among them."""
    if tap not in taps:
        raise ValueError(f"unknown tap '{tap}'; the network gives {', '.join(taps)}")


def teacher_of(outputs: Outputs | None, term: Term) -> Outputs:
    """Return the teacher's outputs, or raise a ValueError that names the term that lacks them."""
    if outputs is None:
        raise ValueError(f"{type(term).__name__} needs a teacher, and there is none")
    return outputs
