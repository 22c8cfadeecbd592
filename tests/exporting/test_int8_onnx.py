"""8 bits of ONNX files, on a graph that is small enough to be written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from idd_seg.exporting.int8_onnx import layers, of_sizes, quantise  # noqa: E402

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)


def graph(path: Path) -> Path:
    """The mean over the width, as a product with a matrix made of the picture's size, and a convolution of it."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, "h", "w"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "h", 1])
    constants = {
        "weight": WEIGHT,
        "place": np.array([3]),
        "one": np.array([1]),
        "side": np.array([[255.0]], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["bytes"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["bytes", "side"], ["pixels"], "scale"),
        helper.make_node("Shape", ["image"], ["shape"], "shape"),
        helper.make_node("Gather", ["shape", "place"], ["width"], "gather"),
        helper.make_node("Cast", ["width"], ["number"], "number", to=TensorProto.FLOAT),
        helper.make_node("Reciprocal", ["number"], ["share"], "share"),
        helper.make_node("Concat", ["width", "one"], ["wanted"], "wanted", axis=0),
        helper.make_node("Expand", ["share", "wanted"], ["matrix"], "matrix"),
        helper.make_node("MatMul", ["pixels", "matrix"], ["mean"], "pool"),
        helper.make_node("Conv", ["mean", "weight"], ["logits"], "classify"),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "small", [image], [logits], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def logits(path: Path, picture: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"image": picture.numpy()})[0]
    return found


def test_pictures_smaller_than_those_of_the_calibration_are_pooled_and_products_do_not_overflow(tmp_path: Path) -> None:
    source = graph(tmp_path / "model.onnx")
    assert (layers(source), of_sizes(source)) == (["classify"], ["pool"])
    # The same all along the width, so that the mean is, and with it every range, whatever the width.
    columns = [torch.randint(0, 256, (1, 3, 8, 1), dtype=torch.uint8) for _ in range(4)]
    quantise(source, tmp_path / "model_int8.onnx", [column.repeat(1, 1, 1, 64) for column in columns])
    for width in (64, 16, 128):
        picture = columns[0].repeat(1, 1, 1, width)
        exact, rounded = (logits(tmp_path / name, picture) for name in ("model.onnx", "model_int8.onnx"))
        assert np.abs(rounded - exact).max() < 0.03 * np.abs(exact).max(), width
