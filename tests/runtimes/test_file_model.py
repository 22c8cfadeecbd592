"""Files of runtimes in the place of a checkpoint; PyTorch stands for the runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import idd_seg
from idd_seg import library
from idd_seg.checkpoints.exported_folder import CONFIG
from idd_seg.evaluation.inference import Inference
from idd_seg.exporting.folder import config_of
from idd_seg.exporting.graph import Deployed
from idd_seg.library import Model
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
