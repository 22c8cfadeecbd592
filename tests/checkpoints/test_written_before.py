"""A run and a kept teacher that were written before the package was in wings (commit fa7a178) are still taken.

The archive holds a run that was stopped at step 2 of 4, the teacher that was kept for it, and what the same run had
come to where nothing stopped it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.restore import data_from, student_from
from tests.helpers import run_here

ARCHIVE = Path(__file__).with_name("written_by_0.1.zip")
NARROW = "{stem_type: deep, stem_width: 8, channels: [8, 8, 8, 8]}"
OPTIONS = (
    *("data.size=[32,32]", "data.train_length=16", "data.val_length=4", "data.batch_size=4", "data.num_workers=0"),
    *("trainer.max_steps=4", "trainer.log_every_n_steps=1", "trainer.val_check_interval=2", "optimizer=sgd"),
    *("teacher.training.max_steps=2", "teacher.model.auxiliary=false", "teacher.model.head.width=8"),
    *("student.auxiliary=false", "student.head.width=8", "balance=gradient", "teacher_cache=disk"),
    *("loss=[ce,kd,idd,position]", "loss.kd_weight=1", "data.recipe.lr.adamw=4e-3"),  # which were the defaults
    "trainer.gradient_clip_val=null",
    f"teacher.model.options={NARROW}",
    f"student.options={NARROW[:-1]}, layers: [1, 1, 1, 1]}}",
)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_a_checkpoint_gives_back_its_student_and_its_data(there: Path) -> None:
    saved = read_checkpoint(there / "run" / "checkpoints" / "last.ckpt")
    student, data = student_from(saved), data_from(saved, None)
    assert student(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 11, 4, 4)
    assert [len(data.dataset("val")), data.num_classes] == [4, 11]


def test_a_run_resumes_to_the_same_numbers_with_the_teacher_that_was_kept(there: Path) -> None:
    done = run_here("train", *OPTIONS, f"hydra.run.dir={there / 'run'}", "resume=auto", cwd=there)
    assert done.returncode == 0, done.stderr
    assert "teacher: taken from" in done.stdout
    assert "last.ckpt" in done.stdout  # from which it went on
    expected = json.loads((there / "finished_metrics.json").read_text(encoding="utf-8"))
    found = json.loads((there / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert found["last"]["step"] == 4
    assert found["teacher"]["sha256"] == expected["teacher"]["sha256"]
    # Other machines round otherwise; a network that began anew would be far off.
    assert found["last"]["pixel_accuracy"] == pytest.approx(expected["last"]["pixel_accuracy"], abs=0.02)
