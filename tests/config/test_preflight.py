"""What is wrong is told before anything is trained, and each option is looked at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from idd_seg.config import option_types, preflight
from tests.config.test_composition import compose
from tests.helpers import TINY, clean_error, run_here


class Hostile:
    def __reduce__(self) -> Any:
        return print, ("executed",)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    torch.save({"weight": Hostile()}, tmp_path / "hostile.pth")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "empty.pth").touch()
    return tmp_path


# Each is told although the teacher has to be trained first, and before it is.
MISTAKES = [
    (["student.weights=nowhere.pth"], "there is no file 'nowhere.pth'"),
    (["student.weights=hostile.pth"], "holds more than weights and plain values"),
    (["student.weights=other.safetensors"], "does not fit 'resnet18'"),
    (["student.weights=empty.pth"], "is empty (0 bytes)"),
    (["teacher.model.weights=nowhere.pth"], "there is no file 'nowhere.pth'"),
    (["student.backbone=resnet81"], "backbone 'resnet81' is not a timm model"),
    (["student.head.bins=[0]"], "head.bins must be numbers of cells >= 1, got [0]"),
    (["loss=[ce,cwd]", "loss.cwd.tap=neck"], "loss.cwd: unknown tap 'neck'"),
    (["loss=[ce,idd]", "loss.idd.taps=[stage9]"], "loss.idd: unknown tap 'stage9'"),
    (["loss.position.reader_weights=nowhere.safetensors"], "reader_weights 'nowhere.safetensors' can't be loaded"),
    (["teacher.training.optimizer.lr=fast"], "error: teacher.training.optimizer.lr must be a number"),
    (["teacher.training.max_steps=0"], "error: teacher.training.max_steps must be a whole number from 1 to 2147483647"),
    (["teacher.training.pretrained=true"], "train from scratch with teacher.training.pretrained=false"),
    (["teacher.model.head.bins=[]"], "head.bins"),
    (["teacher.checkpoint=nowhere.ckpt"], "there is no file 'nowhere.ckpt'"),
    (["teacher.checkpoint=hostile.pth"], "holds more than weights and plain values"),
    (["callbacks.last.every_n_steps=x"], "callbacks.last.every_n_steps must be a whole number, got 'x'"),
    (["teacher.stop=0"], "error: teacher.stop must be a whole number from 1 to 2147483647, or null, got '0'"),
    (["teacher.start=2", "teacher.stop=2"], "error: teacher.start=2 teacher.stop=2: there is no step at which"),
    (["teacher.start=999"], "error: teacher.start=999 never asks the teacher in a run of"),
    (["loss=kd", "teacher.stop=1"], "error: teacher.stop=1 leaves out the terms that need the teacher"),
    (["resume=yes"], "resume must be auto, never or null, got 'yes'"),
    (["resume=1"], "resume must be auto, never or null, got '1'"),
    (["data.cache=tape"], "data.cache must be none or ram or disk, got 'tape'"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=lambda x: x[-1] if isinstance(x, list) else None)
def test_a_mistake_is_told_before_the_teacher_is_trained(options: list[str], message: str, files: Path) -> None:
    done = run_here("train", *TINY, *options, "hydra.run.dir=here", cwd=files)
    assert message in clean_error(done)
    assert "executed" not in done.stdout
    assert not (files / "cache").exists()
    assert not (files / "here" / "checkpoints").exists()


def test_each_option_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: Counter[str] = Counter()
    lists: set[str] = set()  # whose items go by the name of the list
    original = option_types.check_types

    def counted(node: Any, where: str) -> None:
        looks[where] += 1
        if isinstance(node, list):
            lists.add(where)
        original(node, where)

    monkeypatch.setattr(option_types, "check_types", counted)
    for name in ("instantiate", "preflight"):
        monkeypatch.setattr(f"idd_seg.config.{name}.check_types", counted)
    done = run_here("train", *TINY, "loss=[ce]", "hydra.run.dir=here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert looks["data.batch_size"] == looks["trainer.max_steps"] == looks["loss.ce.weight"] == 1
    assert {name: number for name, number in looks.items() if number > 1 and name not in lists} == {}


def test_weights_of_another_normalisation_are_told(recwarn: pytest.WarningsRecorder) -> None:
    wanted = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]"]
    for options in (["student=lite0", *wanted], ["student=r18"], ["student=lite0", "student.pretrained=false"]):
        preflight._look_at_normalisation(compose("train", "data=voc", "pretrained=true", *options))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"'data\.mean=\[0\.5,0\.5,0\.5\]' 'data\.std=\[0\.5,0\.5,0\.5\]'"):
        preflight._look_at_normalisation(compose("train", "data=voc", "pretrained=true", "student=lite0"))
