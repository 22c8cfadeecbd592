"""8-bit ONNX files by ONNX Runtime's static quantisation."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from idd_seg.runtimes.onnx_session import IMAGE

# Layers in 8 bits: those whose kernels ONNX Runtime has in 8 bits, and what stands between them.
QUANTISED = ["Conv", "Add", "Relu", "Clip", "MaxPool", "Concat", "MatMul"]
WEIGHTED = ("Conv", "MatMul")


def layers(source: Path) -> list[str]:
    """Return the names of the layers that have weights, from the input to the output."""
    import onnx

    graph = onnx.load(source).graph
    weights = {value.name for value in graph.initializer}
    return [node.name for node in graph.node if node.op_type in WEIGHTED and weights.intersection(node.input)]


def of_sizes(source: Path) -> list[str]:
    """Return the names of the products with matrices that are computed from the picture's size: adaptive pooling.

    Their entries are as large as the picture is small, so that a range that was seen on some pictures cuts off those of
    smaller ones.
    """
    import onnx

    graph = onnx.load(source).graph
    seen, sizes = {value.name for value in graph.input}, set[str]()  # what follows from pixels, and from sizes alone
    found = []
    for node in graph.node:
        if node.op_type == "MatMul" and sizes.intersection(node.input):
            found.append(node.name)
        if node.op_type != "Shape" and seen.intersection(node.input):
            seen.update(node.output)
        elif node.op_type == "Shape" or sizes.intersection(node.input):
            sizes.update(node.output)
    return found


def quantise(source: Path, target: Path, pictures: Sequence[Tensor], in_float: Sequence[str] = ()) -> None:
    """Write the 8-bit form of an ONNX file: weights by channel, activations by the ranges seen on `pictures`.

    Args:
        pictures: (1, C, H, W) each, as the file takes them.
        in_float: names of layers that stay in float32, beside the products of `of_sizes`.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(pictures)

        def get_next(self) -> Any:
            picture = next(self.left, None)
            return None if picture is None else {IMAGE: picture.numpy()}

    with _quiet_root(), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=[*in_float, *of_sizes(source)],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Weights of 7 bits: two products of 8 by 8 overflow the 16 bits in which a CPU without VNNI adds them, and
            # are cut off; CPUs with VNNI add in 32.
            reduce_range=True,
        )


@contextmanager
def _quiet_root() -> Iterator[None]:
    """Silence the root logger, on which the package advises to do what is done here."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
