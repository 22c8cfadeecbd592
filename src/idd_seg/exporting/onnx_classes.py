"""An ONNX file that gives classes instead of logits: of a picture 4 bytes a pixel leave the runtime, not 4 a class."""

from __future__ import annotations

from pathlib import Path

from idd_seg.runtimes.onnx_session import LOGITS

CLASSES = "classes"


def write_classes(source: Path, target: Path) -> None:
    """Write the ONNX file `source`, which gives `logits` (N, K, H, W), so that it gives `classes` (N, H, W) int32.

    Of equal logits the lowest class wins, as in `predict`.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(source)
    largest = helper.make_node("ArgMax", [LOGITS], ["class_index"], name="largest", axis=1, keepdims=0)
    model.graph.node.append(largest)
    model.graph.node.append(helper.make_node("Cast", ["class_index"], [CLASSES], name="as_int32", to=TensorProto.INT32))
    del model.graph.output[:]
    shape = ["batch", "height", "width"]
    model.graph.output.append(helper.make_tensor_value_info(CLASSES, TensorProto.INT32, shape))
    onnx.checker.check_model(model)
    onnx.save(model, target)
