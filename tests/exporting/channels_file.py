"""The smallest network as an ONNX file: the brightest of red, green and blue is the class."""

from __future__ import annotations

from pathlib import Path

import pytest


def logits_file(path: Path) -> None:
    """Write an ONNX file whose logits are the channels of the picture; without the package the test is skipped."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    shape = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["image"], ["logits"], to=kinds.FLOAT)],
        "channels",
        [helper.make_tensor_value_info("image", kinds.UINT8, shape)],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, {"class_names": "a\nb\nc"})
    onnx.save(model, path)
