"""Checkpoint files: whole or not there, the one before, and runs whose disk is full."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from idd_seg.callbacks.atomic_checkpoint_io import AtomicCheckpointIO, _keep
from idd_seg.callbacks.checkpoint import Last, best
from idd_seg.checkpoints.reader import check_records, latest_whole, previous_of, read_checkpoint
from idd_seg.errors import CheckpointError
from idd_seg.losses.ce import CrossEntropy
from tests.test_training import distiller, shapes

NAMES = ("best.ckpt", "last.ckpt", "last.previous.ckpt")


def content(step: int) -> dict[str, Any]:
    return {"idd_seg": {"format": 1, "step": step}, "state_dict": {"student.a": torch.full((40,), float(step))}}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """`last.ckpt` of step 2, and the one of step 1."""
    files, path = AtomicCheckpointIO("last.ckpt"), tmp_path / "last.ckpt"
    for step in (1, 2):
        files.save_checkpoint(content(step), path)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def step_of(path: Path) -> int:
    return int(read_checkpoint(path).metadata["step"])


def test_the_one_before_is_kept(written: Path) -> None:
    assert [step_of(path) for path in (written, previous_of(written))] == [2, 1]
    assert sorted(path.name for path in written.parent.iterdir()) == ["last.ckpt", "last.previous.ckpt"]


def test_what_is_not_known_to_be_whole_does_not_take_its_place(written: Path) -> None:
    cut(written)
    AtomicCheckpointIO("last.ckpt").save_checkpoint(content(3), written)
    assert [step_of(path) for path in (written, previous_of(written))] == [3, 1]


def test_what_was_read_is_known_to_be_whole(written: Path) -> None:
    files = AtomicCheckpointIO("last.ckpt")
    files.load_checkpoint(written)
    files.save_checkpoint(content(3), written)
    assert [step_of(path) for path in (written, previous_of(written))] == [3, 2]


def test_of_other_checkpoints_none_before_is_kept(tmp_path: Path) -> None:
    files = AtomicCheckpointIO("last.ckpt")
    for step in (1, 2):
        files.save_checkpoint(content(step), tmp_path / "best.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_names_are_exchanged_where_there_are_no_links(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    _keep(written)
    assert not written.exists()
    assert step_of(previous_of(written)) == 2


def test_a_kill_between_the_two_names_leaves_both(written: Path) -> None:
    _keep(written)
    _keep(written)
    assert [step_of(path) for path in (written, previous_of(written))] == [2, 2]
    assert len(list(written.parent.iterdir())) == 2


def test_a_run_folder_that_has_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AtomicCheckpointIO().save_checkpoint(content(1), tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert not list(tmp_path.iterdir())


# Which one a run goes on from


def test_the_last_one_is_read_without_a_word(written: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved = latest_whole(written)
    assert saved is not None
    assert saved.path == written


@pytest.mark.parametrize(
    "damage", [cut, Path.unlink, lambda path: path.write_bytes(b""), lambda p: p.write_bytes(b"x" * 99)]
)
def test_a_damaged_one_is_named_and_the_one_before_taken(written: Path, damage: Any) -> None:
    damage(written)
    with pytest.warns(UserWarning, match=r"last\.ckpt'.*the run goes on from '.*last\.previous\.ckpt'"):
        saved = latest_whole(written)
    assert saved is not None
    assert saved.metadata["step"] == 1


def test_two_damaged_ones_are_one_error(written: Path) -> None:
    cut(written)
    cut(previous_of(written))
    with pytest.raises(CheckpointError, match=r"can't go on: .*last\.ckpt.*last\.previous\.ckpt.*resume=never"):
        latest_whole(written)


def test_without_any_a_run_begins(tmp_path: Path) -> None:
    assert latest_whole(tmp_path / "last.ckpt") is None


def test_a_flipped_bit_in_the_weights_is_noticed(written: Path) -> None:
    good = written.read_bytes()
    place = good.index(torch.full((40,), 2.0).numpy().tobytes()) + 5
    written.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
    assert not torch.equal(torch.load(written, weights_only=True)["state_dict"]["student.a"], torch.full((40,), 2.0))
    with pytest.raises(CheckpointError, match="is not what was written"):
        read_checkpoint(written)


def test_packed_records_are_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10_000))
    with pytest.raises(CheckpointError, match="packed records"):
        check_records(tmp_path / "a.ckpt")


# A run


class Full(AtomicCheckpointIO):
    """A disk that is full at the named steps."""

    def __init__(self, steps: set[int], names: tuple[str, ...] = NAMES) -> None:
        super().__init__("last.ckpt")
        self.steps, self.names = steps, names

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if checkpoint["global_step"] in self.steps and Path(path).name in self.names:
            raise OSError(28, "No space left on device")
        super().save_checkpoint(checkpoint, path)


def fit(folder: Path, plugin: AtomicCheckpointIO, steps: int = 6) -> tuple[Any, list[str]]:
    module = distiller({"ce": CrossEntropy()}, None)
    callbacks = [best(str(folder)), Last(str(folder), 2)]
    options: dict[str, Any] = {"val_check_interval": 3, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    run = L.Trainer(accelerator="cpu", max_steps=steps, plugins=[plugin], callbacks=callbacks, **options, **quiet)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.fit(module, datamodule=shapes())
    return module, [str(one.message) for one in told if "can't be written" in str(one.message)]


def saved_step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def test_a_run_goes_on_without_a_checkpoint_and_tries_again(tmp_path: Path) -> None:
    module, told = fit(tmp_path, Full({2, 4}))
    assert [f"at step {step} (No space left on device)" in text for step, text in zip((2, 4), told, strict=True)] == [
        True
    ] * 2
    assert module.trainer.global_step == 6
    assert saved_step(tmp_path / "checkpoints" / "last.ckpt") == 6


def test_a_best_one_that_is_not_written_does_not_count(tmp_path: Path) -> None:
    module, told = fit(tmp_path, Full({3}, ("best.ckpt",)))
    assert len(told) == 1
    assert list(module.validated) == [6]
    assert saved_step(tmp_path / "checkpoints" / "best.ckpt") == 6


def test_a_run_whose_last_checkpoint_is_not_written_fails(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.ckpt', a checkpoint of the end .*No space left.*resume=auto"):
        fit(tmp_path, Full({6}, ("last.ckpt",)))
    assert saved_step(tmp_path / "checkpoints" / "last.ckpt") == 4
