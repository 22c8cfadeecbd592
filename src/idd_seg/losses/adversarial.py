"""Adversarial distillation: a discriminator must not tell the student's predictions from the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.adapters import require_equal_widths
from idd_seg.losses.ops.discriminator import (
    Discriminator,
    frozen_discriminator,
    hinge_loss,
    wasserstein_loss,
)
from idd_seg.losses.ops.grid import as_float32, masked_mean, nearest_labels, no_autocast, own_masked_mean, resize_like
from idd_seg.losses.ops.inner_step import own_step
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, teacher_of
from idd_seg.ops.validation import require_above, require_at_least, require_choice, require_whole
from idd_seg.types import Batch, Outputs

Objective = Literal["hinge", "wgan_gp"]


def _check_options(lr: float, width: int, penalty: float) -> None:
    require_above("lr", lr, 0)
    require_whole("width", width, 1)
    require_at_least("penalty", penalty, 0)


def predictions(logits: Tensor, counted: Tensor) -> Tensor:
    """Return class probabilities (N, K, h, w) in float32, zero at the positions that `counted` (N, 1, h, w) leaves out.

    Raw logits would make the discriminator's task trivial, and its gradients as steep as the networks' scales differ;
    probabilities are bounded, and on the same scale for both.
    """
    return as_float32(logits).softmax(dim=1) * counted


class Adversarial(Term):
    r"""A discriminator D learns to tell the teacher's predictions from the student's; the student learns to pass.

    .. math:: -\frac{1}{N} \sum_n \bar D\big(\mathrm{softmax}(s_n), x_n\big)

    where :math:`\bar D` is the mean of D's scores over the map of an image and x the image, averaged over the cells of
    the student's grid. Y. Liu et al., "Structured knowledge distillation for semantic segmentation", CVPR 2019 (its
    Ho, there on logits; see `predictions`). Unlike other terms it may be negative, and is not zero where the networks
    agree.

    D takes one Adam step before the student's loss at each training step. Its weights are held fixed, and its
    estimates of singular values too, while it scores the student. Ignored pixels are zeros to D in all its maps, and
    the student gets no gradient there; images without any other pixel are left out.

    Args:
        num_classes: K.
        objective: of D: `hinge`, with spectral normalisation of its weights, or `wgan_gp`, with a gradient penalty.
        lr: of D's Adam; the authors use 4e-4.
        width: channels of D's first convolution; see `Discriminator`.
        penalty: factor of the gradient penalty; `hinge` takes no notice.
        ignore_index: label of pixels that take no part.

    Raises:
        ValueError: for an option out of range; in `update`, if the networks' numbers of classes differ.
    """

    label_use = "none"

    def __init__(
        self,
        num_classes: int,
        weight: float = 0.1,
        objective: Objective = "hinge",
        lr: float = 4e-4,
        width: int = 64,
        penalty: float = 10.0,
        ignore_index: int = 255,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        require_choice("objective", objective, get_args(Objective))
        _check_options(lr, width, penalty)
        self.num_classes, self.objective, self.ignore_index = num_classes, objective, ignore_index
        self.lr, self.width, self.penalty = float(lr), width, float(penalty)
        self.discriminator: Discriminator
        self.optimizer: torch.optim.Optimizer

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        """Build the discriminator: here, so that its random weights are drawn after the student's."""
        self.discriminator, self.optimizer = frozen_discriminator(
            self.num_classes, self.width, self.objective == "hinge", self.lr
        )

    def train(self, mode: bool = True) -> Adversarial:
        """Set the mode; the discriminator is in evaluation mode outside its own steps."""
        super().train(mode)
        if hasattr(self, "discriminator"):
            self.discriminator.eval()
        return self

    def _scene(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image and the positions that count on the grid of the logits, and the images that have any."""
        size = logits.shape[-2:]
        counted = (nearest_labels(batch.label, size) != self.ignore_index)[:, None]
        image = F.adaptive_avg_pool2d(as_float32(batch.image), (size[0], size[1]))
        return image.to(as_float32(logits).dtype) * counted, counted, counted.any((2, 3), keepdim=True)

    def update(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        ours, theirs = student.logits.detach(), teacher_of(teacher, self).logits.detach()
        require_equal_widths(ours, theirs)
        with torch.no_grad(), no_autocast(ours):
            image, counted, images = self._scene(ours, batch)
            fake = predictions(ours, counted)
            real = predictions(resize_like(as_float32(theirs), ours.shape[-2:]), counted).to(fake.dtype)
        with no_autocast(ours):
            own_step(self.discriminator, self.optimizer, lambda: self._loss_of_d(real, fake, image, images))

    def _loss_of_d(self, real: Tensor, fake: Tensor, image: Tensor, counted: Tensor) -> Tensor:
        if self.objective == "hinge":
            return hinge_loss(self.discriminator, real, fake, image, counted)
        return wasserstein_loss(self.discriminator, real, fake, image, counted, self.penalty)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        with no_autocast(student.logits):
            image, counted, images = self._scene(student.logits, batch)
            return -masked_mean(self._scores(student.logits, image, counted), images)

    def _scores(self, logits: Tensor, image: Tensor, counted: Tensor) -> Tensor:
        scores: Tensor = self.discriminator(predictions(logits, counted), image)
        return scores

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return how much higher the discriminator scores the teacher than the student; near 0, it is deceived."""
        with no_autocast(student.logits):
            image, counted, images = self._scene(student.logits, batch)
            theirs = resize_like(as_float32(teacher_of(teacher, self).logits), student.logits.shape[-2:])
            gap = self._scores(theirs, image, counted) - self._scores(student.logits, image, counted)
            return {"gap": own_masked_mean(gap, images)}

    def get_extra_state(self) -> dict[str, Any]:
        """Return the discriminator's optimizer, so that it is saved with the term."""
        return self.optimizer.state_dict() if hasattr(self, "optimizer") else {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the discriminator's optimizer."""
        if state:
            self.optimizer.load_state_dict(state)
