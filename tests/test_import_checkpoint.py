"""`python -m idd_seg.import_checkpoint`: a foreign file becomes ours, whole or not at all, and is a teacher again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import idd_seg.import_checkpoint
from idd_seg.checkpoints.reader import file_hash
from idd_seg.config import instantiate
from idd_seg.config import teacher as teacher_config
from idd_seg.data.shapes import Shapes
from idd_seg.errors import CheckpointError
from tests.commands import call
from tests.config.test_composition import compose
from tests.models.foreign.networks import image, mmseg, randomise

SMALL = ("teacher.model.depth=18", "teacher.model.base=8", "teacher.model.width=16")
MMSEG = ("teacher=mmseg_pspnet_r101", *SMALL, "checkpoint=a.pth", "data=shapes")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    state = randomise(mmseg("psp", 11)).state_dict()
    torch.save({"meta": {"epoch": 80}, "state_dict": {**state, "auxiliary_head.x": torch.ones(2)}}, tmp_path / "a.pth")
    return tmp_path


def run(place: Path, patch: pytest.MonkeyPatch, *options: str) -> int:
    return call(idd_seg.import_checkpoint, *options, folder=place, patch=patch)


def card(path: Path) -> dict:  # type: ignore[type-arg]
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["idd_seg"])


def test_it_says_what_it_holds(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, monkeypatch, *MMSEG, "out=b.safetensors") == 0
    said = capsys.readouterr().out
    assert "11 classes" in said
    assert "left out 1 tensors of auxiliary_head, which training alone uses" in said
    assert "its classes are taken for those of data=shapes, by their place" in said
    held = card(place / "b.safetensors")
    assert held["source"] == {"name": "a.pth", "sha256": file_hash(place / "a.pth")}
    assert held["model"]["_target_"] == "idd_seg.models.foreign.mmseg.MMSeg"
    assert held["model"]["depth"] == 18
    assert held["model"]["num_classes"] == 11
    assert held["class_names"][:2] == ["ground", "fine grain"]
    own = torch.load(place / "a.pth", weights_only=True)["state_dict"]
    found = load_file(place / "b.safetensors")
    assert set(found) == set(own) - {"auxiliary_head.x"}
    assert all(torch.equal(found[name], own[name]) for name in found)
    assert sorted(p.name for p in place.iterdir()) == ["a.pth", "b.safetensors"]


@pytest.mark.parametrize("teacher", ["imported", "mmseg_pspnet_r101"])
@torch.no_grad()
def test_the_result_is_a_teacher_with_the_same_logits(
    teacher: str, place: Path, monkeypatch: pytest.MonkeyPatch, shapes: Shapes
) -> None:
    assert run(place, monkeypatch, *MMSEG, "out=b.safetensors") == 0
    described = compose("train", "data=shapes", "teacher=mmseg_pspnet_r101", *SMALL)
    expected = teacher_config.load_teacher(str(place / "a.pth"), described, shapes)
    cfg = described if teacher != "imported" else compose("train", "data=shapes", "teacher=imported")
    found = teacher_config.load_teacher(str(place / "b.safetensors"), cfg, shapes)
    assert torch.equal(found(image(32, 32)).logits, expected(image(32, 32)).logits)
    assert found.source["sha256"] == file_hash(place / "b.safetensors")


@pytest.fixture
def shapes() -> Shapes:
    data = instantiate.make_data(compose("train", "data=shapes"))
    assert isinstance(data, Shapes)
    return data


def test_names_of_classes_may_be_given(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"c{i}" for i in range(11)]
    options = (*MMSEG[:-1], "data=voc", f"teacher.class_names=[{','.join(names)}]")
    assert run(place, monkeypatch, *options, "out=b.safetensors") == 0
    assert card(place / "b.safetensors")["class_names"] == names
    assert run(place, monkeypatch, *MMSEG[:-1], "data=voc", "out=c.safetensors") == 0
    assert card(place / "c.safetensors")["class_names"] is None  # 11 are not the 21 of voc


MISTAKES = [
    (("teacher=mmseg_pspnet_r101",), "415 missing: backbone.layer1.0.conv3.weight"),
    (("teacher=cirkd_pspnet_r101", *SMALL), "it has no head.classifier.weight"),
    (("teacher=mmseg_deeplabv3_r101", *SMALL), "of another network than teacher.model"),
    (("teacher=r101",), "teacher=r101: choose the one that describes the file"),
    (("teacher=imported",), "teacher=imported: choose the one that describes the file"),
    ((), "teacher=none: choose the one that describes the file"),
    ((*MMSEG, "checkpoint=nowhere.pth"), "there is no file 'nowhere.pth'"),
    ((*MMSEG, "out=b.pth"), "must end with .safetensors"),
    ((*MMSEG, "out=nowhere/b.safetensors"), "there is no folder 'nowhere'"),
    ((*MMSEG, "out=there.safetensors"), "exists already and is left as it is"),
    (("teacher=huggingface", "checkpoint=."), "is used as it is: teacher.checkpoint=."),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_writes_nothing(
    options: tuple[str, ...],
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place / "there.safetensors").write_text("mine")
    assert run(place, monkeypatch, "checkpoint=a.pth", "out=b.safetensors", *options) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert message in said[0]
    assert sorted(p.name for p in place.iterdir()) == ["a.pth", "there.safetensors"]
    assert (place / "there.safetensors").read_text() == "mine"


def test_a_card_that_would_call_something_else_is_refused(tmp_path: Path, shapes: Shapes) -> None:
    mark = tmp_path / "mark"
    hostile = {"model": {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(mark)]}}}
    save_file({"x": torch.ones(1)}, tmp_path / "a.safetensors", {"idd_seg": json.dumps(hostile)})
    with pytest.raises(CheckpointError, match=r"would call 'pathlib\.Path\.touch', which is not of this program"):
        teacher_config.load_teacher(
            str(tmp_path / "a.safetensors"), compose("train", "data=shapes", "teacher=imported"), shapes
        )
    assert not mark.exists()
