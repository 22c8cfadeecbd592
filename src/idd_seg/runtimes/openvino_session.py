"""OpenVINO's files (IR: an .xml with its .bin) in OpenVINO, on the CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from idd_seg.errors import CheckpointError, ConfigError, UserError

Precision = Literal["float32", "bfloat16"]
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def require_openvino(what: str, *more: str) -> None:
    """Refuse to go on without the packages `openvino` and `more`.

    Raises:
        UserError: that names what is missing and what to do.
    """
    missing = [name for name in ("openvino", *more) if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{what} needs packages that are not installed: {', '.join(missing)}; pip install 'idd-seg[openvino]'"
        )


def openvino() -> Any:
    """Import OpenVINO without the package by which it reports to its makers that it was imported.

    It imports absl, whose log keeps the standard error of that moment and closes it when logging is set up anew: one
    that somebody has put there for a while, such as a notebook, is not given to it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    with contextlib.redirect_stderr(sys.__stderr__):
        import openvino as package

    return package


def has_bfloat16() -> bool:
    """Say whether this CPU computes in bfloat16 by itself."""
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoSession:
    """A file of `idd_seg.export` in OpenVINO, on the CPU.

    Args:
        precision: of the layers that are not in 8 bits. By itself OpenVINO takes bfloat16 where the CPU has it.
        threads: of one call; None takes as many as PyTorch does.

    Raises:
        ConfigError: for bfloat16 on a CPU without it: it would be float32 under another name.
        UserError: without the package.
        CheckpointError: if the file can't be read.
    """

    def __init__(self, path: Path, precision: Precision = "float32", threads: int | None = None) -> None:
        require_openvino(f"'{path}'")
        self.path = path
        core = openvino().Core()
        if precision == "bfloat16" and not has_bfloat16():
            raise ConfigError("precision=bfloat16: this CPU does not compute in bfloat16; leave it out")
        settings = {
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self.compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise CheckpointError(f"'{path}' can't be read by OpenVINO: {reason(error)}") from error

    def __call__(self, image: Tensor) -> Tensor:
        """(N, C, H, W) as the file takes them -> (N, K, H, W) logits.

        Raises:
            CheckpointError: if the file takes something else.
        """
        given, taken = image.numpy(), self.compiled.input(0).get_element_type().to_dtype()
        if given.dtype != taken:  # OpenVINO would leave out what does not fit
            raise CheckpointError(f"'{self.path}' takes pictures of {taken}, and these are {given.dtype}")
        try:
            return torch.from_numpy(self.compiled(given)[0])
        except RuntimeError as error:
            raise CheckpointError(f"'{self.path}' can't be run by OpenVINO: {reason(error)}") from error


def reason(error: RuntimeError) -> str:
    """Return what OpenVINO has found wrong: the last line, behind those that name places in its code."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or ["RuntimeError"])[-1][:200]
