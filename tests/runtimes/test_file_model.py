"""Files of runtimes in the place of a checkpoint; PyTorch stands for the runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import idd_seg
from idd_seg import library
from idd_seg.checkpoints.exported_folder import CONFIG, read_beside
from idd_seg.errors import CheckpointError
from idd_seg.evaluation.inference import Inference
from idd_seg.exporting.folder import config_of
from idd_seg.exporting.graph import Deployed
from idd_seg.library import Model
from idd_seg.runtimes.openvino_session import reason
from tests.shipping import save_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return idd_seg.load(save_run(tmp_path_factory.mktemp("run"), "data.image_scale=0.5"), "cpu")


def opened(model: Model, folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Model:
    """Open the model as a file of a runtime, whose `config.json` says something else of its data."""
    config = config_of(model.saved, model.card)
    config["data"] |= changes
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / "model.onnx").write_bytes(b"a graph")
    graph = Deployed(model.network, model.card).eval()  # type: ignore[arg-type]
    patch.setattr(library, "session_of", lambda *_: graph)
    return idd_seg.load(folder / "model.onnx")


def write_graph(path: Path) -> None:
    """Write a graph that takes RGB of 8 bits, and gives each channel as logits."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    sides = ["batch", 3, "height", "width"]
    places = [("image", TensorProto.UINT8), ("logits", TensorProto.FLOAT)]
    taken, given = (helper.make_tensor_value_info(name, kind, sides) for name, kind in places)
    cast = helper.make_node("Cast", ["image"], ["logits"], to=TensorProto.FLOAT)
    graph = helper.make_graph([cast], "graph", [taken], [given])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), path)


def picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize(
    "inference",
    [None, Inference("slide", (32, 32)), Inference("slide", (48, 40), (20, 20), flip=True)],
    ids=["whole", "windows", "mirrored"],
)
def test_windows_are_as_large_as_those_of_the_checkpoint(
    inference: Inference | None, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are given in pixels that the network sees, which are half as many as the file's here."""
    shown = picture(160, 200)
    found = opened(model, tmp_path, monkeypatch).predict(shown, inference)
    assert (found == model.predict(shown, inference)).mean() > 0.98


def test_a_configuration_of_other_classes_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else class 0 of 11 would bear the name of class 0 of 3."""
    few = {"class_names": model.class_names[:3], "palette": [list(colour) for colour in model.palette[:3]]}
    with pytest.raises(
        CheckpointError, match=r"model\.onnx' gives \(1, 11, 32, 40\), .* have it give \(1, 3, 32, 40\)"
    ):
        opened(model, tmp_path, monkeypatch, **few)


@pytest.mark.parametrize(
    "changes",
    [{"bits": 16}, {"channels": 1, "mean": [0.5], "std": [0.2]}, {"channels": 4, "mean": [0.5] * 4, "std": [0.2] * 4}],
    ids=["bits", "grey", "infrared"],
)
def test_a_configuration_of_other_pictures_is_refused(changes: dict[str, Any], model: Model, tmp_path: Path) -> None:
    config = config_of(model.saved, model.card)
    config["data"] |= changes
    (tmp_path / CONFIG).write_text(json.dumps(config))
    write_graph(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"model\.onnx' can't be run by ONNX Runtime: .*(type|dimensions)"):
        idd_seg.load(tmp_path / "model.onnx")


def test_what_openvino_found_wrong_stands_behind_the_places_in_its_code() -> None:
    text = "Exception from src/core.cpp:84:\nCheck 'x' failed at src/y.cpp:900:\nIncorrect weights in bin file!\n\n\n"
    assert reason(RuntimeError(text)) == "Incorrect weights in bin file!"
    assert reason(RuntimeError()) == "RuntimeError"


def test_graphs_of_other_weights_are_told_apart(model: Model, tmp_path: Path) -> None:
    """`label` goes on in a folder of masks if the network has the same hash."""
    (tmp_path / CONFIG).write_text(json.dumps(config_of(model.saved, model.card)))
    (tmp_path / "a.xml").write_text("<net/>")
    (tmp_path / "a.bin").write_bytes(b"weights")
    first = read_beside(tmp_path / "a.xml").sha256
    assert read_beside(tmp_path / "a.xml").sha256 == first
    (tmp_path / "a.bin").write_bytes(b"others")
    assert read_beside(tmp_path / "a.xml").sha256 != first
