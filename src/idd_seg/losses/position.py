"""Position information distillation: the student's features must tell the same place as the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from idd_seg.losses.ops.adapters import Adapter
from idd_seg.losses.ops.grid import as_float32, masked_mean, no_autocast, own_masked_mean, resize_like
from idd_seg.losses.ops.position_maps import Target, whole_image_box
from idd_seg.losses.ops.position_probe import PositionProbe, fit_step, frozen_probe, keep_probe, load_probe
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, require_tap, teacher_of
from idd_seg.ops.validation import require_above, require_choice, require_whole
from idd_seg.types import Batch, Outputs

Coordinates = Literal["image", "crop"]


def reading_distance(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Mean squared difference of two readings (N, T, h, w) where `valid` (N, 1, h, w); zero where nothing is."""
    return masked_mean((student - teacher.detach()).square(), valid)


class Position(Term):
    """The student's features, read by the teacher's position reader, are pulled to the teacher's reading.

    The reader learns to predict absolute position from the frozen teacher's features by its own optimizer steps
    inside the run.
    Its weights are held fixed while it reads the student, whose maps pass through 1 x 1 adapters where widths differ;
    the adapters are trained with the student and are no part of it. After the idea of Zhang, Zhou and Tu, IJCAI 2022;
    reader and targets follow Islam, Jia and Bruce, "How much position information do convolutional neural networks
    encode?", ICLR 2020.

    Args:
        taps: names of the feature maps, brought to the first one's grid and concatenated.
        targets: names of the maps that the reader predicts; see `position_maps`.
        coordinates: `image`, place in the original photograph; `crop`, place in the crop.
        depth, padding: of the reader; see `PositionProbe`.
        reader_lr: step size of the reader's Adam.
        reader_steps: optimizer steps of the reader per training step; 0 holds a loaded reader fixed.
        reader_weights: file that `keep` wrote in an earlier run with the same teacher and reader.
        warmup_steps: training steps in which the reader alone learns and the term is zero.

    Raises:
        ValueError: for an option out of range, or a tap that a network does not give.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        taps: Sequence[str] = ("head",),
        targets: Sequence[Target] = ("horizontal", "vertical"),
        coordinates: Coordinates = "image",
        depth: int = 1,
        padding: int = 0,
        reader_lr: float = 1e-2,
        reader_steps: int = 1,
        reader_weights: str | None = None,
        warmup_steps: int = 100,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        require_choice("coordinates", coordinates, get_args(Coordinates))
        for target in targets:
            require_choice("targets", target, get_args(Target))
        if not taps or not targets:
            raise ValueError("position needs at least one tap and one target")
        require_whole("reader_steps", reader_steps, 0)
        require_whole("warmup_steps", warmup_steps, 0)
        require_above("reader_lr", reader_lr, 0)
        self.taps, self.targets, self.coordinates = tuple(taps), tuple(targets), coordinates
        self.depth, self.padding = depth, padding
        self.reader_lr, self.reader_steps, self.warmup_steps = reader_lr, reader_steps, warmup_steps
        self.reader_weights = reader_weights
        self.reader: PositionProbe
        self.adapters = nn.ModuleDict()
        self.optimizer: torch.optim.Optimizer
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def teacher_maps(self) -> Sequence[str]:
        return self.taps

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        for tap in self.taps:
            require_tap(student_channels, tap)
            require_tap(teacher_channels, tap)
            if student_channels[tap] != teacher_channels[tap]:
                self.adapters[tap] = Adapter(student_channels[tap], teacher_channels[tap])
        channels = sum(teacher_channels[tap] for tap in self.taps)
        self.reader, self.optimizer = frozen_probe(channels, self.targets, self.depth, self.padding, self.reader_lr)
        if self.reader_weights is not None:
            load_probe(self.reader, self.reader_weights, self._about_reader())

    def train(self, mode: bool = True) -> Position:
        """Set the mode of the adapters; the reader is in evaluation mode outside its own steps."""
        super().train(mode)
        if hasattr(self, "reader"):
            self.reader.eval()
        return self

    def _maps(self, outputs: Outputs, *, adapt: bool) -> Tensor:
        maps = [as_float32(outputs.features[tap]) for tap in self.taps]
        if adapt:
            maps = [
                self.adapters[tap](x) if tap in self.adapters else x for tap, x in zip(self.taps, maps, strict=True)
            ]
        size = (maps[0].shape[-2], maps[0].shape[-1])
        return torch.cat([resize_like(x, size) for x in maps], dim=1)

    def _truth(self, batch: Batch, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        box = batch.box if self.coordinates == "image" else whole_image_box(len(batch.box), batch.box.device)
        return self.reader.truth(box, (size[-2], size[-1]))

    def update(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        features = self._maps(teacher_of(teacher, self), adapt=False)
        maps, valid = self._truth(batch, features.shape)
        with no_autocast(features):
            for _ in range(self.reader_steps):
                fit_step(self.reader, self.optimizer, features, maps, valid)
        self.steps += 1

    def readings(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Return what the reader reads from the student and from the teacher, both (N, T, h, w) in [0, 1].

        Held-out pictures have the size that they have: maps that are too small for the reader are enlarged.
        """
        with no_autocast(student.logits):
            target = self._maps(teacher, adapt=False)
            target = target if self.training else resize_like(target, self.reader.least(target.shape[-2:]))
            ours = resize_like(self._maps(student, adapt=True), target.shape[-2:])
            with torch.no_grad():
                theirs = self.reader(target)
            return self.reader(ours), theirs

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        theirs = teacher_of(teacher, self)
        ours, reading = self.readings(student, theirs)
        _, valid = self._truth(batch, self.reader.least(theirs.features[self.taps[0]].shape[-2:]))
        loss = reading_distance(ours, reading, valid)
        # The factor is a tensor: a Python condition would wait for the device.
        return loss * (self.steps > self.warmup_steps).to(loss.dtype) if self.training else loss

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the reader's mean squared error against the true place, from student and from teacher."""
        theirs = teacher_of(teacher, self)
        ours, reading = self.readings(student, theirs)
        maps, valid = self._truth(batch, self.reader.least(theirs.features[self.taps[0]].shape[-2:]))
        return {
            "mse_student": own_masked_mean((ours - maps).square(), valid),
            "mse_teacher": own_masked_mean((reading - maps).square(), valid),
        }

    def keep(self, folder: Path) -> None:
        """Write the reader as `position_reader.safetensors`."""
        keep_probe(self.reader, folder / "position_reader.safetensors", self._about_reader())

    def _about_reader(self) -> dict[str, str]:
        lists = {"taps": ",".join(self.taps), "targets": ",".join(self.targets)}
        return {**lists, "coordinates": self.coordinates, "depth": str(self.depth), "padding": str(self.padding)}

    def get_extra_state(self) -> dict[str, Any]:
        """Return the reader's optimizer, so that it is saved with the term."""
        return self.optimizer.state_dict() if hasattr(self, "optimizer") else {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the reader's optimizer."""
        if state:
            self.optimizer.load_state_dict(state)
