"""Every option of Lightning's Trainer, and every callback of Lightning's, is supported or refused with a reason."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import lightning
import pytest
from lightning.pytorch import callbacks

from idd_seg.config.trainer_options import CALLBACKS, OURS, TRAINER, Refused
from tests.helpers import TINY, clean_error, run_here

OPTIONS = inspect.signature(lightning.Trainer).parameters
# Of each refused option a value that a user would give.
GIVEN = {
    "logger": "true",
    "callbacks": "[a]",
    "plugins": "[a]",
    "fast_dev_run": "true",
    "limit_train_batches": "0.5",
    "enable_progress_bar": "false",
    "enable_checkpointing": "false",
    "enable_model_summary": "true",
    "use_distributed_sampler": "true",
    "barebones": "true",
}
REFUSED = [name for name, entry in TRAINER.items() if entry is not None]


def test_every_option_of_lightnings_trainer_is_entered() -> None:
    assert set(TRAINER) == set(OPTIONS), "enter the new option in config/trainer_options.py, as handed through or not"
    assert not set(OURS) & set(OPTIONS)


def test_every_callback_of_lightnings_is_entered() -> None:
    assert set(callbacks.__all__) <= set(CALLBACKS), "enter the new callback in config/trainer_options.py"


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_option_is_told_with_its_reason(name: str, tmp_path: Path) -> None:
    entry = TRAINER[name]
    assert isinstance(entry, Refused)
    value = GIVEN.get(name, "1")
    message = clean_error(run_here("train", *TINY, "loss=ce", f"++trainer.{name}={value}", cwd=tmp_path))
    assert f"error: trainer.{name}=" in message
    assert entry.reason in message


@pytest.mark.parametrize("name", [name for name, reason in CALLBACKS.items() if reason is not None])
def test_a_refused_callback_is_told_with_its_reason(name: str, tmp_path: Path) -> None:
    target = f"+callbacks.mine._target_=lightning.pytorch.callbacks.{name}"
    message = clean_error(run_here("train", *TINY, "loss=ce", target, cwd=tmp_path))
    assert f"error: callbacks.mine: Lightning's {name} has no place here: {CALLBACKS[name]}" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["+trainer.max_epoch=1"], "there is no option 'trainer.max_epoch'; did you mean 'max_epochs'?"),
        (["trainer.strategy=fsdp"], "trainer.strategy must be auto or ddp, got 'fsdp'"),
        (["trainer.limit_val_batches=0"], "trainer.limit_val_batches must be a number > 0, got '0'"),
        (["trainer.limit_val_batches=1.5"], "a whole number of batches >= 1, or a share of them, above 0 to 1.0, got"),
        (["+trainer.gradient_clip_algorithm=norm"], "does nothing without trainer.gradient_clip_val; give both"),
        (
            ["optimizer=sgd", "+trainer.gradient_clip_algorithm=value"],
            "does nothing without trainer.gradient_clip_val; give",
        ),
        (["+trainer.profiler=simple"], "trainer.profiler=simple would show nothing here"),
        (["+callbacks.x._target_=pytorch_lightning.callbacks.Timer"], "name it as lightning.pytorch.callbacks.Timer"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_a_value_with_no_sense_is_told(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in clean_error(run_here("train", *TINY, "loss=ce", *options, cwd=tmp_path))


@pytest.mark.parametrize(
    ("limit", "judged"),
    [("1", "val, first 1 of 3 batches"), ("0.1", "val, first 1 of 3 batches"), ("0.7", "val, first 2 of 3 batches")],
)
def test_scores_of_a_part_say_so(limit: str, judged: str, tmp_path: Path) -> None:
    options = ["data.val_length=6", "data.eval_batch_size=2", f"trainer.limit_val_batches={limit}"]
    done = run_here("train", *TINY, *options, "loss=ce", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["split"] == judged


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["LearningRateMonitor"],
        ["LambdaCallback"],
        ["ModelCheckpoint", "+callbacks.mine.dirpath=more"],
        ["EarlyStopping", "+callbacks.mine.monitor=val/mIoU", "+callbacks.mine.mode=max"],
    ],
    ids=lambda x: x[0],
)
def test_a_supported_callback_works(options: list[str], tmp_path: Path) -> None:
    target = f"+callbacks.mine._target_=lightning.pytorch.callbacks.{options[0]}"
    done = run_here("train", *TINY, "loss=ce", target, *options[1:], "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    target = "+callbacks.mine._target_=lightning.pytorch.callbacks.NoSuchCallback"
    assert "callbacks.mine" in clean_error(run_here("train", *TINY, "loss=ce", target, cwd=tmp_path))
