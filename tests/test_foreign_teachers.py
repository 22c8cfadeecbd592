"""Teachers from elsewhere in a training: each kind teaches, is named by path and hash, and mistakes get one message."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torchvision.models import get_model

import idd_seg.train
from idd_seg.checkpoints.reader import file_hash, read_checkpoint
from idd_seg.models.foreign.repository import folder_hash
from tests.commands import call
from tests.models.foreign.networks import cirkd, mmseg, save, segformer

K = 11  # classes of data=shapes
TINY = (
    "data.size=[32,32]",
    "data.train_length=16",
    "data.val_length=4",
    "data.batch_size=4",
    "trainer.max_steps=2",
    "trainer.log_every_n_steps=1",
    "hydra.run.dir=run",
    "loss=[ce,kd,idd,position]",
    "loss.position.warmup_steps=0",
)
SMALL = ("teacher.model.depth=18", "teacher.model.base=8", "teacher.model.width=16")


def of_cirkd(folder: Path, classes: int = K) -> Path:
    return save(cirkd("aspp", classes), folder / "cirkd.pth")


def of_mmseg(folder: Path) -> Path:
    return save(mmseg("psp", K), folder / "mmseg.pth")


def of_torchvision(folder: Path) -> Path:
    network = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=K)
    return save(network, folder / "torchvision.pth")


def of_smp(folder: Path) -> Path:
    return save(smp.FPN("resnet18", encoder_weights=None, classes=K), folder / "smp.pth")


def of_huggingface(folder: Path) -> Path:
    segformer().save_pretrained(folder / "segformer")
    return folder / "segformer"


FIVE = "teacher.class_map=[0,1,2,3,4,[0,1],[2,3],4,3,class 2,[class 0,class 4]]"  # of 5 labels, for 11 classes
KINDS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "cirkd": (of_cirkd, ("teacher=cirkd_deeplabv3_r101", *SMALL)),
    "mmseg": (of_mmseg, ("teacher=mmseg_pspnet_r101", *SMALL)),
    "torchvision": (of_torchvision, ("teacher=torchvision", "teacher.model.name=lraspp_mobilenet_v3_large")),
    "smp": (of_smp, ("teacher=smp", "teacher.model.architecture=FPN", "teacher.model.encoder=resnet18")),
    "huggingface": (of_huggingface, ("teacher=huggingface", FIVE)),
}


def train(folder: Path, patch: pytest.MonkeyPatch, *options: str) -> int:
    return call(idd_seg.train, *TINY, *options, folder=folder, patch=patch)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k == "cirkd" else pytest.mark.slow) for k in KINDS])
def test_it_teaches(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, options = KINDS[kind]
    path = make(tmp_path)
    assert train(tmp_path, monkeypatch, *options, f"teacher.checkpoint={path}") == 0
    assert "teacher: " in capsys.readouterr().out
    rows = (tmp_path / "run" / "metrics.csv").read_text()
    assert "train/idd" in rows
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    expected = folder_hash(path) if path.is_dir() else file_hash(path)
    assert saved.metadata["teacher"]["sha256"] == expected
    assert saved.metadata["teacher"]["path"] == str(path.resolve())
    noted = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert noted["teacher"]["sha256"] == expected


MISTAKES: list[tuple[list[str], str]] = [
    ([], "teacher.checkpoint is not set. Give the file of teacher=cirkd_deeplabv3_r101"),
    (["teacher.checkpoint=auto"], "was trained elsewhere and can't be trained here"),
    (["teacher.checkpoint=nowhere.pth"], "there is no file 'nowhere.pth'"),
    (["teacher.checkpoint=https://example.org/a.pth"], "is a URL"),
    (["teacher.checkpoint=five.pth"], "was trained for 5 classes, data=shapes has 11; teacher.class_map=[...]"),
    (["teacher.checkpoint=five.pth", "teacher.class_map=[0,1]"], "class_map has 2 entries, the data have 11 classes"),
    (
        ["teacher.checkpoint=five.pth", "teacher.class_map=[0,1,2,3,4,5,0,0,0,0,0]"],
        "the entry of 'lamp' is 5; the teacher's classes are 0 to 4",
    ),
    (["teacher.checkpoint=eleven.pth", "teacher.class_names=[a,b]"], "class_names has 2 names, the network 11 classes"),
    (["teacher.checkpoint=eleven.pth", "teacher.model.head=fpn"], "teacher.model.head must be one of aspp, psp"),
    (["teacher.checkpoint=eleven.pth", "teacher.model.depth=19"], "teacher.model.depth must be one of 18, 34, 50"),
    (["teacher.checkpoint=eleven.pth", "teacher.model.base=100000"], "teacher.model.base must be 1 to 1024"),
    (["teacher.checkpoint=eleven.pth", "teacher.model.width=0"], "teacher.model.width must be 1 to 1024, got 0"),
    (["teacher.checkpoint=eleven.pth", "teacher.model.head=psp"], "of another network than teacher.model"),
    (["teacher.checkpoint=eleven.pth", "loss.idd.taps=[stage9]"], "unknown tap 'stage9'"),
    (["teacher=imported", "teacher.checkpoint=eleven.pth"], "does not say what network it is of"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    of_cirkd(folder).rename(folder / "eleven.pth")
    of_cirkd(folder, 5).rename(folder / "five.pth")
    return folder


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_gets_one_clear_error(
    options: list[str],
    message: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("eleven.pth", "five.pth"):
        (tmp_path / name).symlink_to(place / name)
    kind = [] if any(o.startswith("teacher=") for o in options) else ["teacher=cirkd_deeplabv3_r101", *SMALL]
    assert train(tmp_path, monkeypatch, *kind, *options) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert message in said[0]


@pytest.mark.parametrize(
    ("kind", "package"),
    [("torchvision", "torchvision"), ("smp", "segmentation_models_pytorch"), ("huggingface", "transformers")],
)
def test_a_package_that_is_not_installed(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, options = KINDS[kind]
    path = make(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    assert train(tmp_path, monkeypatch, *options, f"teacher.checkpoint={path}") == 1
    assert f"pip install 'idd-seg[{kind}]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_class_map_serves_a_teacher_of_our_own_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One trained for other classes is refused without, and taken with."""
    teacher: Any = torch.load(_own_teacher(tmp_path, monkeypatch), weights_only=True)
    teacher["idd_seg"]["class_names"] = [f"other {i}" for i in range(K)]
    torch.save(teacher, tmp_path / "other.ckpt")
    options = ("teacher.model.backbone=resnet18", "+teacher.model.options.layers=[1,1,1,1]")
    small = ("teacher.model.options.stem_width=8", "teacher.model.options.channels=[8,16,32,64]")
    common = (*options, *small, "teacher.checkpoint=other.ckpt")
    assert train(tmp_path, monkeypatch, *common, "hydra.run.dir=refused") == 1
    assert "trained for other classes" in capsys.readouterr().err
    names = ",".join(f"other {i}" for i in range(K))
    assert train(tmp_path, monkeypatch, *common, f"teacher.class_map=[{names}]", "hydra.run.dir=taken") == 0


def _own_teacher(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    options = ("teacher=none", "loss=ce", "hydra.run.dir=own", "trainer.max_steps=1")
    tiny = tuple(o for o in TINY if not o.startswith(("loss", "hydra", "trainer.max_steps")))
    assert call(idd_seg.train, *tiny, *options, folder=folder, patch=patch) == 0
    return folder / "own" / "checkpoints" / "last.ckpt"
