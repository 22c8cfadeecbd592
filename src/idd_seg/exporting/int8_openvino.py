"""8-bit OpenVINO files by NNCF's calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from idd_seg.exporting.openvino_file import save_ir
from idd_seg.ops.quiet import quiet
from idd_seg.runtimes.openvino_session import openvino

WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")


def layers(source: Path) -> list[str]:
    """Return the names of the layers that have weights, from the input to the output."""
    found = openvino().Core().read_model(source).get_ordered_ops()
    return [
        op.get_friendly_name()
        for op in found
        if op.get_type_name() in WEIGHTED and op.input_value(1).get_node().get_type_name() == "Constant"
    ]


def quantise(source: Path, target: Path, pictures: Sequence[Tensor], in_float: Sequence[str] = ()) -> None:
    """Write the 8-bit form of an OpenVINO file: weights by channel, activations by the ranges seen on `pictures`.

    Args:
        pictures: (1, C, H, W) each, as the file takes them.
        in_float: names of layers that stay in float.
    """
    package = openvino()
    with quiet("nncf", "torch.utils.cpp_extension"):
        import nncf

        quantised = nncf.quantize(
            package.Core().read_model(source),
            nncf.Dataset(pictures, lambda picture: picture.numpy()),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(pictures),
            ignored_scope=nncf.IgnoredScope(names=list(in_float)) if in_float else None,
            # Weights of 7 bits in all layers: see int8_onnx.
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
    save_ir(quantised, target)
