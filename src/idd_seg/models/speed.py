"""How the networks are computed: what makes them faster and leaves their function as it is."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from idd_seg.errors import ConfigError, first_line
from idd_seg.models.acceleration.cuda_graph import Graphed
from idd_seg.models.acceleration.fold_batch_norm import fold_batch_norms
from idd_seg.models.acceleration.split_pyramid import split_pyramids
from idd_seg.models.teacher import FrozenTeacher

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Speed:
    """Applies the options of a configuration to the networks of a run.

    Args:
        fold_teacher: fold the teacher's BatchNorm into its convolutions; equal but for rounding.
        split_pyramid: take the convolution of a teacher's PSP head over its pooled maps cell by cell, which leaves out
            a seventh of a PSPNet-R101's operations; equal but for rounding.
        channels_last: weights, and with them all maps, with the channels of a cell side by side.
        teacher_precision: `float32`, `bfloat16` or `float16`, of the teacher's weights and computing; null leaves them
            to `trainer.precision`.
        teacher_graph: record the teacher's launches once as a CUDA graph, and replay them.
        tf32: let products of float32 matrices on a GPU be rounded to 10 bits; convolutions as well.
        compile: by `torch.compile`, student and teacher; without a compiler a warning, and nothing else.

    Raises:
        ConfigError: for an unknown precision.
    """

    def __init__(
        self,
        fold_teacher: bool = True,
        split_pyramid: bool = True,
        channels_last: bool = False,
        teacher_precision: Precision | None = None,
        teacher_graph: bool = False,
        tf32: bool = False,
        compile: bool = False,
    ) -> None:
        if teacher_precision is not None and teacher_precision not in PRECISIONS:
            raise ConfigError(
                f"speed.teacher_precision must be one of {', '.join(PRECISIONS)} or null, got '{teacher_precision}'"
            )
        if teacher_graph and compile:
            raise ConfigError("speed.teacher_graph=true and compile=true exclude each other; choose one")
        self.fold_teacher, self.channels_last, self.tf32, self.compile = fold_teacher, channels_last, tf32, compile
        self.split_pyramid = split_pyramid
        self.teacher_precision, self.teacher_graph = teacher_precision, teacher_graph

    def set_up(self) -> None:
        """Choose the precision of the whole process's products, also where the run before it chose another."""
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32

    def prepare(self, student: nn.Module, teacher: FrozenTeacher | None, device: torch.device) -> None:
        """Change both networks in place, before they are trained or moved to the device."""
        compiled = self.compile and compiler_works(device)
        if self.channels_last:
            student.to(memory_format=torch.channels_last)
        if compiled:
            student.compile()
        if teacher is not None:
            self._prepare_teacher(teacher, device, compiled)

    def _prepare_teacher(self, teacher: FrozenTeacher, device: torch.device, compiled: bool) -> None:
        network = teacher.network
        if self.fold_teacher:
            _fold(network, teacher.in_channels)
        if self.split_pyramid:
            split_pyramids(network)
        if self.teacher_precision is not None:
            teacher.compute_in(PRECISIONS[self.teacher_precision])
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        if compiled:
            network.compile()
        if self.teacher_graph and device.type == "cuda":
            teacher.network = Graphed(network)


def _fold(network: nn.Module, in_channels: int) -> None:
    # A small picture to compare the two forms of the network by; the same at every start.
    picture: Tensor = torch.randn(1, in_channels, 128, 128, generator=torch.Generator().manual_seed(0))
    try:
        fold_batch_norms(network, picture)
    except RuntimeError as error:
        raise ConfigError(f"the teacher's BatchNorm can't be folded: {error}; use speed.fold_teacher=false") from error


def compiler_works(device: torch.device) -> bool:
    """Compile something small, to learn early what networks would meet late."""
    try:
        torch.compile(torch.square)(torch.ones(4, device=device))
    except Exception as error:  # each missing part of a compiler has an error of its own
        warnings.warn(
            f"compile=true, but there is no working compiler here, and the networks are not compiled "
            f"({first_line(error)})",
            stacklevel=2,
        )
        return False
    return True
