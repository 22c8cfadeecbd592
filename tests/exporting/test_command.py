"""`python -m idd_seg.export`: the folder, its report and its card; mistakes leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import idd_seg
from idd_seg import export as command
from idd_seg.errors import ConfigError
from idd_seg.exporting import export as exporting
from idd_seg.exporting import onnx_file, parity, speed
from idd_seg.exporting.card import model_card
from tests.commands import call
from tests.shipping import save_run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"), "head@student.head=aspp")


def export(checkpoint: Path, folder: Path, patch: pytest.MonkeyPatch, *options: str) -> int:
    return call(command, f"checkpoint={checkpoint}", "hydra.run.dir=out", *options, folder=folder, patch=patch)


@pytest.mark.slow
def test_everything_at_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = ["formats=[safetensors,onnx,torch_export]", "winograd=true", "fp16=true", "int8=true"]
    options += [
        "measure.speed=true",
        "calibration.images=2",
        "calibration.max_drop=null",
        "measure.size=[32,48]",
        "measure.repeats=1",
        "output=a model",
    ]
    assert export(checkpoint, tmp_path, monkeypatch, *options) == 0, capfd.readouterr().err
    folder = tmp_path / "a model"
    files = {"model.safetensors", "model.onnx", "model_fp16.onnx", "model_int8.onnx", "model.pt2"}
    files.add("model_winograd.onnx")
    assert {path.name for path in folder.iterdir()} == {*files, "config.json", "export.json", "README.md"}
    report = json.loads((folder / "export.json").read_text())
    assert report["files"].keys() == files
    for name in files - {"model_int8.onnx"}:
        found = report["files"][name]["parity"]
        assert found["max_abs_difference"] <= found["tolerance"] * max(1, found["max_abs_logit"]), name
    assert 0 <= report["int8"]["before"]["miou"] <= 1
    after = report["int8"]["files"]["model_int8.onnx"]["after"]["miou"]
    assert after == pytest.approx(report["int8"]["before"]["miou"], abs=0.2)
    assert report["speed"]["ratio"]["pytorch"] == 1
    assert set(report["speed"]["images_per_second"]) == {"pytorch", *files}
    assert report["speed"]["threads"] == torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("image", "tensor(uint8)", ["batch", 3, "height", "width"])
    ]
    assert session.get_modelmeta().custom_metadata_map["class_names"].splitlines()[1] == "fine grain"
    check_predictions(session, folder)
    for path in folder.iterdir():
        assert str(Path(idd_seg.__file__).parent).encode() not in path.read_bytes(), path
    said = capfd.readouterr().out
    assert "model_int8.onnx: mIoU" in said
    assert "exported: a model" in said


def check_predictions(session: Any, folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    model = idd_seg.load(folder, "cpu")
    logits = session.run(["logits"], {"image": image.transpose(2, 0, 1)[None]})[0]
    assert logits.shape == (1, 11, 40, 56)
    assert (logits.argmax(1)[0] == model.predict(image)).mean() > 0.999


def test_the_card_says_what_the_model_is(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export(checkpoint, tmp_path, monkeypatch, "formats=[safetensors]") == 0
    text = (tmp_path / "out" / "model" / "README.md").read_text()
    model = idd_seg.load(checkpoint, "cpu")
    for i, name in enumerate(model.class_names):
        assert f"| {i} | {name} |" in text
    assert "mIoU 25.00 %" in text
    assert "split `val`" in text
    assert "mean [0.47, 0.47, 0.47], std [0.2, 0.2, 0.2]" in text
    assert model.saved.sha256 in text
    assert "c0ffee" in text
    assert "last.ckpt, SHA-256 ab12" in text
    assert "onnxruntime" not in text
    assert (tmp_path / "out" / "run.json").is_file()


def test_a_card_shows_names_as_they_are() -> None:
    from tests.exporting.test_graph import card

    pictures = card()
    pictures.class_names[0] = "a|b\n<script>x</script> *c*"
    config = {"name": "x", "student": {"backbone": "resnet18"}, "source": {}}
    text = model_card(config, pictures, {"parameters": 1, "files": {}}, None)
    assert "a\\|b &lt;script&gt;x&lt;/script&gt; \\*c\\*" in text


def test_a_folder_can_be_exported_again(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export(checkpoint, tmp_path, monkeypatch, "formats=[safetensors]", "output=first") == 0
    assert export(tmp_path / "first", tmp_path, monkeypatch, "formats=[safetensors]", "output=second") == 0
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second"))
    assert first == second


def test_nothing_is_overwritten(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    assert export(checkpoint, tmp_path, monkeypatch, "formats=[safetensors]", "output=mine") == 1
    assert "there is something already" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("formats", ["[safetensors]", "[safetensors,torch_export]"])
def test_without_the_packages_the_other_formats_work(
    formats: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    find = onnx_file.importlib.util.find_spec
    monkeypatch.setattr(
        onnx_file.importlib.util, "find_spec", lambda n, *a: None if n.startswith("onnx") else find(n, *a)
    )
    assert export(checkpoint, tmp_path, monkeypatch, "output=a") == 1
    said = capfd.readouterr().err
    assert "not installed: onnx, onnxscript, onnxruntime; pip install 'idd-seg[onnx]'" in said
    assert export(checkpoint, tmp_path, monkeypatch, f"formats={formats}", "output=a") == 0


def test_a_file_that_computes_something_else_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporting.parity, "compare", lambda *_: parity.Parity(0.5, 3.0, 0.9))
    assert export(checkpoint, tmp_path, monkeypatch, "formats=[safetensors]", "output=a") == 1
    assert "model.safetensors was not written: its logits differ" in capfd.readouterr().err
    assert not (tmp_path / "a").exists()
    assert not list(tmp_path.glob(".export-*"))


MISTAKES = [
    (["formats=[onxx]"], "formats: there is no 'onxx'; did you mean 'onnx'?"),
    (["formats=onnx"], "formats must be a list"),
    (["formats=[]"], "formats must be a list"),
    (
        ["formats=[safetensors]", "int8=true"],
        "int8=true writes a form of the ONNX or OpenVINO file; add onnx to formats",
    ),
    (["winograd=1"], "winograd must be true or false"),
    (["fp16=yes please"], "fp16 must be true or false"),
    (["tolerance=0"], "tolerance must be a number above 0"),
    (["threads=0"], "threads must be a whole number"),
    (["formats=[safetensors]", "measure.speed=true", "measure.size=512"], "measure.size must be [height,width]"),
    (["formats=[safetensors]", "measure.speed=true", "measure.repeats=0"], "measure.repeats must be a whole number"),
    (["int8=true", "calibration.images=0"], "calibration.images must be a whole number >= 1"),
    (["int8=true", "calibration.max_drop=-1"], "calibration.max_drop must be mIoU points of at least 0, or null"),
    (["int8=true", "calibration.root=elsewhere"], "is generated and has no folder; leave root out"),
    (["chekpoint=3"], "did you mean 'checkpoint'?"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[" ".join(o) for o, _ in MISTAKES])
def test_a_mistake_gets_one_clear_message(
    options: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert export(checkpoint, tmp_path, monkeypatch, *options) == 1
    said = capfd.readouterr().err
    assert message in said
    assert said.count("error: ") == 1
    assert not (tmp_path / "out" / "model").exists()
    assert not list((tmp_path / "out").glob(".export-*"))


@pytest.mark.parametrize(
    "size", [None, 1.5, True, [32], [32, 0], [True, 32], [32.0, 48], "512", {"height": 1, "width": 2}]
)
def test_a_size_that_is_none_is_one_message(size: Any) -> None:
    with pytest.raises(ConfigError, match=r"measure\.size must be \[height,width\] in whole pixels"):
        speed.check(size, 1)
