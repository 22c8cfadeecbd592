"""ONNX files, written for any number and size of pictures."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.errors import UserError
from idd_seg.exporting.winograd import by_winograd
from idd_seg.ops.quiet import quiet
from idd_seg.runtimes.onnx_session import IMAGE, LOGITS

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_onnx(what: str, extra: str = "onnx") -> None:
    """Refuse to go on without the packages.

    Raises:
        UserError: that names what is missing and what to do.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{what} needs packages that are not installed: {', '.join(missing)}; "
            f"pip install 'idd-seg[{extra}]', or leave it out: formats=[safetensors,torch_export]"
        )


def example(pixels: Pixels = RGB) -> Tensor:
    """Return pictures to write a graph by; no side is special."""
    return torch.zeros(2, pixels.channels, 96, 112, dtype=getattr(torch, str(pixels.dtype)))


def any_shape() -> dict[int, Any]:
    """Say that the number of pictures, their height and their width may be any."""
    return dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)


def write_onnx(
    graph: nn.Module, path: Path, metadata: dict[str, str], winograd: bool = False, pixels: Pixels = RGB
) -> None:
    """Write `graph`, from `image` (N, C, H, W) of `pixels` to `logits` (N, K, H, W) float32, as one file.

    Args:
        metadata: names and values that the file carries.
        winograd: compute wide convolutions so; see `winograd.py`.
    """
    axes: dict[int, Any] = {0: "batch", 2: "height", 3: "width"}
    with quiet("torch.onnx", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            graph.eval(),
            (example(pixels),),
            dynamo=True,
            dynamic_shapes=(any_shape(),),
            input_names=[IMAGE],
            output_names=[LOGITS],
            verbose=False,
        )
        if program is None:
            raise UserError("PyTorch could not write the network as ONNX")
        import onnx

        model = program.model_proto
        if winograd:
            by_winograd(model)
    for place in (model.graph.input[0], model.graph.output[0]):
        for side, name in axes.items():
            place.type.tensor_type.shape.dim[side].dim_param = name
    _forget_origin(model.graph)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def _forget_origin(graph: Any) -> None:
    """Leave out the lines of code, with paths of this machine, that each node carries."""
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    del graph.metadata_props[:]
