"""An exported folder is read as plain values and tensors; what is hostile, damaged or of another network is not."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import idd_seg
from idd_seg.checkpoints.exported_folder import read_saved
from idd_seg.errors import CheckpointError, UserError
from idd_seg.exporting.export import Export
from idd_seg.exporting.plan import ExportPlan
from tests.models.test_weights import Hostile
from tests.shipping import save_run


@pytest.fixture(scope="module")
def run_and_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    top = tmp_path_factory.mktemp("top")
    checkpoint = save_run(top / "run")
    (top / "model").mkdir()
    export = Export(idd_seg.load(checkpoint, "cpu"), ExportPlan(["safetensors"]), top / "model")
    export.write()
    export.describe({})
    return checkpoint, top / "model"


@pytest.fixture
def folder(run_and_folder: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_and_folder[1], tmp_path / "a model"))


def test_the_folder_predicts_as_the_checkpoint_does(run_and_folder: tuple[Path, Path]) -> None:
    checkpoint, exported = run_and_folder
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    ours, theirs = idd_seg.load(exported, "cpu"), idd_seg.load(checkpoint, "cpu")
    assert (ours.predict(image) == theirs.predict(image)).mean() > 0.999
    assert len(np.unique(ours.predict(image))) > 1
    assert (ours.class_names, ours.palette, ours.card) == (theirs.class_names, theirs.palette, theirs.card)


def test_the_folder_tells_nothing_of_the_machine(run_and_folder: tuple[Path, Path]) -> None:
    checkpoint, exported = run_and_folder
    for name in ("config.json", "README.md", "export.json"):
        text = (exported / name).read_text()
        assert str(checkpoint.parent) not in text
        assert "/home/somebody" not in text
    source = json.loads((exported / "config.json").read_text())["source"]
    assert source["teacher"] == {"file": "last.ckpt", "sha256": "ab12"}
    assert source["sha256"] == read_saved(checkpoint).sha256
    assert (source["commit"], source["seed"]) == ("c0ffee", 7)


def test_weights_hold_the_student_alone(run_and_folder: tuple[Path, Path]) -> None:
    names = load_file(run_and_folder[1] / "model.safetensors").keys()
    assert not [name for name in names if "auxiliary" in name or "running_mean" in name or "teacher" in name]


def change(folder: Path, where: list[str], value: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    node = config
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))


HOSTILE: dict[str, tuple[list[str], Any, str]] = {
    "a call": (["student", "_target_"], "os.system", "no network of this program"),
    "a call below": (["student", "head", "_target_"], "builtins.eval", "would call 'builtins.eval'"),
    "a call through ours": (
        ["student", "head", "_target_"],
        "idd_seg.models.pretrained.weights.pickle.loads",
        "would call",
    ),
    "a function of ours": (["student", "_target_"], "idd_seg.models.pretrained.weights.read_weights", "would call"),
    "a call in the data": (["data", "_target_"], "os.system", ""),
    "a data set as student": (["student", "_target_"], "idd_seg.data.shapes.Shapes", "no network of this program"),
    "an expression": (["student", "backbone"], "${oc.env:HOME}", "holds the expression"),
    "a file to be read": (["student", "weights"], "/etc/passwd", ""),
    "a download": (["student", "pretrained"], True, ""),
    "another network": (["student", "options", "stem_width"], 16, "another network"),
    "no backbone at all": (["student", "backbone"], "os.system", "not a timm model"),
    "no student": (["student"], None, "does not say what the student was"),
    "student as text": (["student"], "x", "does not say what the student was"),
    "another program": (["library"], "other", "not of a folder that idd_seg.export wrote"),
    "another format": (["format"], 99, "has format 99"),
    "other classes": (["data", "class_names"], ["a", "b"], "palette"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_configuration_is_refused(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, value, message = HOSTILE[case]
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("executed"))
    change(folder, where, value)
    if case in ("a file to be read", "a download", "a call in the data"):
        # Never looked at: a network that only predicts takes its weights from the folder.
        assert idd_seg.load(folder, "cpu").class_names
        return
    with pytest.raises(UserError, match=message):
        idd_seg.load(folder, "cpu")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100000, '{"library": "idd-seg"}'])
def test_a_configuration_that_is_none_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config.json'"):
        idd_seg.load(folder, "cpu")


def test_a_configuration_that_is_too_large_is_not_read(folder: Path) -> None:
    (folder / "config.json").write_text(" " * 2**21)
    with pytest.raises(CheckpointError, match="a configuration has fewer"):
        idd_seg.load(folder, "cpu")


def test_weights_are_read_by_the_safe_reader(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Hostile(tmp_path / "mark")))
    with pytest.raises(CheckpointError, match="safetensors"):
        idd_seg.load(folder, "cpu")
    assert not (tmp_path / "mark").exists()


def test_missing_and_changed_weights_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    first = next(iter(weights))
    save_file({name: v for name, v in weights.items() if name != first}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{first} is missing"):
        idd_seg.load(folder, "cpu")
    save_file({**weights, first: torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is \(2,\) instead of"):
        idd_seg.load(folder, "cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model.safetensors; export it with"):
        idd_seg.load(folder, "cpu")
