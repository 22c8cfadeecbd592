"""Small promises of docs/reliability.md: NaN is refused, a free folder is known to be free, drafts are removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from idd_seg import train
from idd_seg.data.pipeline.cache import DRAFTS, OLD, CachedSource
from idd_seg.errors import NonFiniteError
from idd_seg.evaluation.scoring import evaluate
from idd_seg.runs import lock
from idd_seg.runs.lock import is_locked, run_lock
from tests.commands import call
from tests.helpers import TINY
from tests.test_training import network, shapes

CE = (*TINY, "loss=ce", "trainer.max_steps=2")


def test_evaluation_refuses_nan_and_names_the_picture() -> None:
    broken = network(4).eval()
    torch.nn.init.constant_(broken.classifier[1].bias, float("nan"))
    with pytest.raises(NonFiniteError, match="shapes:0/val/0"):
        evaluate(broken, shapes(), "val", torch.device("cpu"))


def test_a_class_that_a_network_does_not_know_may_be_minus_infinity() -> None:
    mapped = network(4).eval()
    with torch.no_grad():
        mapped.classifier[1].bias[3] = -float("inf")
    assert evaluate(mapped, shapes(), "val", torch.device("cpu")).miou >= 0


def test_a_folder_is_taken_while_its_lock_is_held_alone(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with FileLock(tmp_path / lock.LOCK):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_a_damaged_note_does_not_hide_how_a_run_ended(tmp_path: Path) -> None:
    cfg = OmegaConf.create({"run_dir": str(tmp_path), "resume": None})

    def fail() -> None:
        with run_lock(cfg):
            (tmp_path / "run.json").write_text("{")
            raise ZeroDivisionError

    def failed() -> None:
        with pytest.raises(ZeroDivisionError):
            fail()

    with pytest.warns(UserWarning, match=r"run\.json' can't be brought up to date"):
        failed()


def test_drafts_of_killed_processes_are_removed_from_a_cache(tmp_path: Path) -> None:
    drafts = tmp_path / DRAFTS
    drafts.mkdir()
    for name in ("old", "new"):
        (drafts / name).write_bytes(b"half")
    long_ago = (drafts / "old").stat().st_mtime - OLD - 10
    os.utime(drafts / "old", (long_ago, long_ago))
    CachedSource(shapes().make_source("val"), tmp_path)
    assert [path.name for path in drafts.iterdir()] == ["new"]


ODD = {
    "optimizer.lr=1e38": "optimizer.lr must be a number, 0 to 1e+06",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val must be a number > 0, or null",
    "trainer.timeout_minutes=0": "trainer.timeout_minutes must be a number",
    "compile=nan": "compile must be true or false",
    "measure_batches=-1": "measure_batches must be a whole number",
    "scheduler.power={}": "scheduler.power must be a number",
    "data.num_workers=nan": "data.num_workers must be a whole number, got",
    "data.val_length=x": "data.val_length must be a whole number",
    "data.scene_seed=nan": "data.scene_seed must be a whole number",
}


@pytest.mark.parametrize("option", ODD)
def test_odd_numbers_are_refused_by_the_name_of_the_option(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(train, *CE, option, "hydra.run.dir=run", folder=tmp_path, patch=monkeypatch) == 1
    errors = capsys.readouterr().err
    assert f"error: {ODD[option]}" in errors or ODD[option] in errors
    assert "Traceback" not in errors


def test_a_run_does_not_go_on_with_another_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*options: str) -> int:
        return call(train, *TINY[:-1], *options, folder=tmp_path, patch=monkeypatch)

    for seed in (0, 1):
        teacher = ("teacher=none", "student=medium", "loss=ce", f"seed={seed}", f"hydra.run.dir=teacher{seed}")
        assert run(*teacher, "trainer.max_steps=1") == 0
    file = tmp_path / "teacher.ckpt"
    student = ("loss=[ce,kd]", f"teacher.checkpoint={file}")
    file.write_bytes((tmp_path / "teacher0" / "checkpoints" / "last.ckpt").read_bytes())
    same = (*student, "hydra.run.dir=student", "resume=auto")
    assert run(*same) == 0, capsys.readouterr().err
    (tmp_path / "student" / "metrics.json").unlink()  # as if it had not come to its end
    file.write_bytes((tmp_path / "teacher1" / "checkpoints" / "last.ckpt").read_bytes())
    assert run(*same) == 1
    assert "was distilled from" in capsys.readouterr().err
