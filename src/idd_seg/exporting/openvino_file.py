"""OpenVINO's files (IR: an .xml with its .bin), made of ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from idd_seg.ops.quiet import quiet
from idd_seg.runtimes.openvino_session import openvino


def write_openvino(source: Path, target: Path, half: bool = False) -> None:
    """Write an ONNX file as IR: the same function, for any number and size of pictures.

    What the ONNX file says of itself stands under `framework` of the IR's `rt_info`.

    Args:
        half: store the weights in float16; the CPU computes in float32 all the same.
    """
    save_ir(openvino().Core().read_model(source), target, half)


def save_ir(model: Any, target: Path, half: bool = False) -> None:
    """Write an OpenVINO model beside its weights."""
    with quiet():
        openvino().save_model(model, target, compress_to_fp16=half)


def size_of(path: Path) -> int:
    """Return the bytes of an .xml and its .bin."""
    return path.stat().st_size + path.with_suffix(".bin").stat().st_size
