"""OpenVINO's files: what they compute, and how they are used in the place of a checkpoint."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import idd_seg
from idd_seg import export as export_command
from idd_seg import predict as predict_command
from idd_seg.errors import CheckpointError, ConfigError, UserError
from idd_seg.runtimes import openvino_session
from tests.commands import call
from tests.shipping import save_run

# Slow, so that they have processes of their own: one that had run half of the other tests before ended without a word.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("openvino", "nncf")),
        reason="pip install 'idd-seg[openvino]'",
    ),
]

NAME, EIGHT = "openvino_model.xml", "openvino_model_int8.xml"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"), "data.image_scale=0.5")


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("export")
    options = ["formats=[openvino]", "int8=true", "calibration.images=2", "calibration.max_drop=null", "output=model"]
    with pytest.MonkeyPatch.context() as patch:
        words = [f"checkpoint={checkpoint}", "hydra.run.dir=out", *options]
        assert call(export_command, *words, folder=place, patch=patch) == 0
    return place / "model"


def picture(height: int = 40, width: int = 56) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


def test_the_files_and_their_report(folder: Path, checkpoint: Path) -> None:
    report = json.loads((folder / "export.json").read_text())
    assert report["files"].keys() == {NAME, EIGHT}
    for name in (NAME, EIGHT):
        both = (folder / name).stat().st_size + (folder / name).with_suffix(".bin").stat().st_size
        assert report["files"][name]["bytes"] == both
        assert str(checkpoint.parent).encode() not in (folder / name).read_bytes()
    entry = report["int8"]["files"][EIGHT]
    assert entry["in_float"] == []
    assert 0 <= entry["after"]["miou"] <= 1
    assert report["int8"]["max_drop"] is None
    assert {"openvino", "nncf", "onnx"} <= report["exported_with"].keys()
    weights = folder / EIGHT
    assert 'element_type="i8"' in weights.read_text()
    assert 'element_type="i8"' not in (folder / NAME).read_text()


def test_a_file_predicts_as_its_checkpoint(folder: Path, checkpoint: Path) -> None:
    ours, theirs = idd_seg.load(checkpoint, "cpu"), idd_seg.load(folder / NAME)
    assert theirs.class_names == ours.class_names
    assert theirs.palette == ours.palette
    for size in ((40, 56), (64, 48)):
        shown = picture(*size)
        assert theirs.predict(shown).shape == size
        # The graph scales the picture without rounding to whole values in between.
        assert (theirs.predict(shown) == ours.predict(shown)).mean() > 0.98


def test_eight_bits_are_near(folder: Path) -> None:
    """Random weights give near classes; it is the logits that are compared."""
    shown = torch.from_numpy(picture().transpose(2, 0, 1).copy())[None]
    eight, right = (idd_seg.load(folder / name).network(shown).logits.flatten() for name in (EIGHT, NAME))
    assert 0 < (eight - right).std() < 0.3 * right.std()


def test_the_command_predicts_with_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    Image.fromarray(picture()).save(tmp_path / "a.png")
    options = [f"checkpoint={folder / NAME}", "input=a.png", "output=masks", "save=[index]", "eval.scales=[1.0,1.5]"]
    assert call(predict_command, *options, folder=tmp_path, patch=monkeypatch) == 0
    written = np.array(Image.open(tmp_path / "masks" / "index" / "a.png"))
    from idd_seg.evaluation.inference import Inference

    assert (written == idd_seg.load(folder / NAME).predict(picture(), Inference(scales=[1.0, 1.5]))).all()


def test_a_graph_is_not_exported_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [f"checkpoint={folder / NAME}", "output=again"]
    assert call(export_command, *options, folder=tmp_path, patch=monkeypatch) == 1
    assert "is a graph of a runtime, without the network's weights" in capfd.readouterr().err


def test_what_a_file_cant_do_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="is run on the CPU"):
        idd_seg.load(folder / NAME, "cuda")
    with pytest.raises(ConfigError, match="precision must be one of"):
        idd_seg.load(folder / NAME, precision="float16")  # type: ignore[arg-type]
    monkeypatch.setattr(openvino_session, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="this CPU does not compute in bfloat16"):
        idd_seg.load(folder / NAME, precision="bfloat16")


def test_precision_is_of_openvino_alone(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="is of OpenVINO's files"):
        idd_seg.load(checkpoint, precision="bfloat16")


def test_what_is_wrong_with_a_file_is_said(folder: Path, tmp_path: Path) -> None:
    for name in (NAME, "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(CheckpointError, match="bin file cannot be found"):
        idd_seg.load(tmp_path / NAME)
    (tmp_path / NAME).with_suffix(".bin").write_bytes((folder / NAME).with_suffix(".bin").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["data"]["bits"] = 16
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="takes pictures of uint8, and these are uint16"):
        idd_seg.load(tmp_path / NAME)
    config["data"] |= {"bits": 8, "channels": 4, "mean": [0.5] * 4, "std": [0.2] * 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"can't be run by OpenVINO: .*shape=\(1\.4\.32\.40\)"):
        idd_seg.load(tmp_path / NAME)


@pytest.mark.parametrize("name", ["a.xml", "a.onnx"])
def test_a_damaged_file_is_one_message(name: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file|does not exist|there is no"):
        idd_seg.load(tmp_path / name)
    (tmp_path / name).write_bytes(b"<net>" * 50)
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        idd_seg.load(tmp_path / name)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="can't be read by"):
        idd_seg.load(tmp_path / name)


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = openvino_session.importlib.util.find_spec
    monkeypatch.setattr(
        openvino_session.importlib.util, "find_spec", lambda n, *a: None if n == "nncf" else find(n, *a)
    )
    openvino_session.require_openvino("this")
    with pytest.raises(UserError, match=r"this needs .* nncf; pip install 'idd-seg\[openvino\]'"):
        openvino_session.require_openvino("this", "nncf")


def test_its_use_is_not_reported_to_its_makers(folder: Path) -> None:
    idd_seg.load(folder / NAME).predict(picture())
    assert sys.modules["openvino_telemetry"] is None


def test_its_log_does_not_keep_the_standard_error_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in its place notes what it would find when it is imported."""

    class Finder(MetaPathFinder, Loader):
        def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
            return ModuleSpec(name, self) if name == "openvino" else None

        def exec_module(self, module: ModuleType) -> None:
            module.found = sys.stderr  # type: ignore[attr-defined]

    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stderr", mine)
    stand_in = openvino_session.openvino()
    monkeypatch.delitem(sys.modules, "openvino")
    assert stand_in.found is sys.__stderr__
    assert sys.stderr is mine


def test_a_calibration_reads_pictures_when_they_are_asked_for() -> None:
    from types import SimpleNamespace

    from idd_seg.exporting.calibration import Pictures

    read = []

    class Source:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> SimpleNamespace:
            read.append(i)
            return SimpleNamespace(image=np.full((2, 3, 3), i, np.uint8))

    pictures = Pictures(SimpleNamespace(dataset=lambda _: SimpleNamespace(source=Source())), 3)  # type: ignore[arg-type]
    assert len(pictures) == 3
    assert read == []
    shown = list(pictures)
    assert len(read) == len(set(read)) == 3
    assert [p.shape for p in shown] == [torch.Size([1, 3, 2, 3])] * 3
    assert [int(p.max()) for p in pictures[:2]] == read[:2]
