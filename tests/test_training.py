"""Whole runs: what a user types, what lies in the folder afterwards, and what must not have changed."""

from __future__ import annotations

import copy
import csv
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from idd_seg.callbacks.checkpoint import AtomicCheckpointIO
from idd_seg.callbacks.progress import ProgressBars
from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.groups import config_dir
from idd_seg.config.instantiate import make_data
from idd_seg.config.restore import data_from, student_from
from idd_seg.config.teacher import load_teacher
from idd_seg.config.teacher_file import take_network
from idd_seg.data.shapes import Shapes
from idd_seg.distillation.module import Distiller
from idd_seg.distillation.non_finite import NonFiniteGuard
from idd_seg.errors import CheckpointError, ConfigError, NonFiniteError
from idd_seg.evaluation.scoring import evaluate
from idd_seg.losses.adversarial import Adversarial
from idd_seg.losses.at import AttentionTransfer
from idd_seg.losses.ce import CrossEntropy
from idd_seg.losses.idd import InterClassDistance
from idd_seg.losses.kd import PixelWise
from idd_seg.losses.position import Position
from idd_seg.losses.term import Term
from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.types import Batch, Outputs
from tests.helpers import TINY, clean_error, run, run_here


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of the default terms, `idd` and `position` in `student`, the teacher in `cache`."""
    folder = tmp_path_factory.mktemp("work")
    ours = ("loss.idd_weight=0.5", "loss.position_weight=1")
    result = run_here("train", *TINY, *ours, "hydra.run.dir=student", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "loss=[ce,kd,cwd,idd,position]" in result.stderr
    assert "training it once" in result.stdout
    return folder


def test_a_run_folder_says_how_to_do_it_again(work: Path) -> None:
    folder = work / "student"
    for name in (
        "config.yaml",
        "run.json",
        "metrics.json",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert (folder / "pictures" / "predictions.png").is_file()
    described = json.loads((folder / "run.json").read_text())
    assert described["seed"] == 0
    assert {"torch", "lightning", "idd-seg"} <= set(described["versions"])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["split"] == "val"
    assert metrics["last"]["step"] == 3
    assert len(metrics["last"]["iou"]) == 11
    assert "${" not in (folder / "config.yaml").read_text()


def test_every_term_is_logged_raw_and_weighted(work: Path) -> None:
    with (work / "student" / "metrics.csv").open() as file:
        columns = set(next(csv.reader(file)))
    for term in ("ce", "kd", "cwd", "idd", "position"):
        assert {f"train/{term}", f"train/{term}_weighted"} <= columns
    assert {"train/loss", "train/lr", "train/images_per_s", "val/mIoU", "val/position_mse_teacher"} <= columns


def test_the_second_run_reuses_the_teacher_whatever_the_students_options(work: Path) -> None:
    result = run_here("train", *TINY, "loss=[ce,kd]", "optimizer.lr=0.01", "seed=3", "hydra.run.dir=second", cwd=work)
    assert result.returncode == 0, result.stderr
    assert "teacher: taken from" in result.stdout
    assert len(list((work / "cache" / "teachers").glob("*/"))) == 1


def test_a_student_begins_where_another_one_has_ended(work: Path) -> None:
    first = "init_from=student/checkpoints/last.ckpt"
    options = [*TINY, "loss=ce", "freeze=[backbone]", "student.pretrained=true", first, "hydra.run.dir=begun"]
    result = run_here("train", *options, cwd=work)
    assert result.returncode == 0, result.stderr
    assert "the student begins from 'student/checkpoints/last.ckpt'" in result.stdout
    before, after = (
        read_checkpoint(work / name / "checkpoints" / "last.ckpt").weights for name in ("student", "begun")
    )
    still = [torch.equal(before[name], after[name]) for name in before if name.startswith("student.backbone.")]
    assert all(still)
    assert not torch.equal(before["student.classifier.1.weight"], after["student.classifier.1.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["init_from=nowhere.ckpt"], "there is no file 'nowhere.ckpt'"),
        (["init_from=https://example.org/s.ckpt"], "is a URL"),
        (["init_from=student/checkpoints/last.ckpt", "student.head.width=4"], "is of another network than the student"),
        (["freeze=[neck]"], "freeze=neck: the parts of a network are backbone, head, stage1"),
        (["freeze=3"], "freeze must be a list of words, got '3'"),
    ],
)
def test_a_wrong_beginning_is_told(options: list[str], message: str, work: Path) -> None:
    assert message in clean_error(run_here("train", *TINY, "loss=ce", "hydra.run.dir=wrong", *options, cwd=work))


def test_short_names_and_epochs(work: Path) -> None:
    words = [word for word in TINY if not word.startswith(("trainer.max_steps", "data.batch_size"))]
    short = ["lr=0.003", "batch=4", "epochs=1.5", "loss=ce", "hydra.run.dir=short"]
    result = run_here("train", *words, *short, cwd=work)
    assert result.returncode == 0, result.stderr
    assert "epochs=1.5: trainer.max_steps=6 (16 pictures, 4 a step)" in result.stdout
    assert json.loads((work / "short" / "metrics.json").read_text())["last"]["step"] == 6
    stored = OmegaConf.load(work / "short" / "config.yaml")
    assert (stored.optimizer.lr, stored.data.batch_size, stored.trainer.max_steps) == (0.003, 4, 6)
    again = run_here("train", *words, *short, "resume=auto", cwd=work)
    assert "nothing to do" in again.stdout, again.stderr
    both = clean_error(run_here("train", *words, "epochs=2", "trainer.max_steps=3", "hydra.run.dir=both", cwd=work))
    assert "epochs and trainer.max_steps both say how long the training is" in both


def test_a_run_that_gets_no_better_ends_early(work: Path) -> None:
    options = [*TINY, "loss=ce", "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0"]
    steps = ["trainer.max_steps=9", "trainer.val_check_interval=1", "hydra.run.dir=early"]
    result = run_here("train", *options, *steps, cwd=work)
    assert result.returncode == 0, result.stderr
    assert json.loads((work / "early" / "metrics.json").read_text())["last"]["step"] < 9


def test_the_twin_needs_no_teacher(work: Path) -> None:
    result = run_here(
        "train", *TINY, "loss=ce", "hydra.run.dir=twin", cwd=work, env={"IDD_SEG_CACHE": str(work / "none")}
    )
    assert result.returncode == 0, result.stderr
    assert not (work / "none").exists()


def test_a_sweep_makes_a_run_of_each_value(work: Path) -> None:
    result = run_here("train", "-m", *TINY, "loss.idd_weight=0,0.5,1", "hydra.sweep.dir=sweep", cwd=work)
    assert result.returncode == 0, result.stderr
    found = sorted(work.glob("sweep/*/metrics.json"))
    assert len(found) == 3
    headers = [p.with_name("metrics.csv").read_text().splitlines()[0] for p in found]
    assert ["train/idd" in header for header in headers] == [False, True, True]


def test_evaluate_repeats_the_score_of_the_run(work: Path) -> None:
    result = run_here("evaluate", "checkpoint=student/checkpoints/last.ckpt", "hydra.run.dir=evaluated", cwd=work)
    assert result.returncode == 0, result.stderr
    again = json.loads((work / "evaluated" / "metrics.json").read_text())
    first = json.loads((work / "student" / "metrics.json").read_text())["last"]
    assert again["split"] == "val"
    assert again["miou"] == pytest.approx(first["miou"], abs=1e-6)
    assert again["iou"] == pytest.approx(first["iou"], abs=1e-6)


def test_compare_makes_table_and_picture(work: Path) -> None:
    options = ("probe_steps=3", "samples=2", "hydra.run.dir=compared")
    result = run_here("compare", "runs={one: student, two: student}", *options, cwd=work)
    assert result.returncode == 0, result.stderr
    assert "teacher" in result.stdout
    assert (work / "compared" / "comparison.png").stat().st_size > 10_000
    networks = json.loads((work / "compared" / "comparison.json").read_text())["networks"]
    assert list(networks) == ["teacher", "one", "two"]
    assert networks["teacher"]["class_distance_error"] == 0
    assert (work / "compared" / "matrices.png").stat().st_size > 10_000
    assert (work / "compared" / "pictures.png").stat().st_size > 10_000
    rows = list(csv.DictReader((work / "compared" / "pictures.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["picture", "teacher", "one", "two", "two - one"]
    assert {row["two - one"] for row in rows} == {"0.00"}
    assert networks["one"] | {"images_per_s": 0} == networks["two"] | {"images_per_s": 0}


@pytest.mark.parametrize("teacher", ["null", "student/checkpoints/last.ckpt"])
def test_compare_takes_another_teacher_or_none(teacher: str, work: Path) -> None:
    options = ("probe_steps=1", "samples=1", f"hydra.run.dir=compared_{len(teacher)}", f"teacher={teacher}")
    result = run_here("compare", "runs={one: student}", *options, cwd=work)
    assert result.returncode == 0, result.stderr
    networks = json.loads((work / f"compared_{len(teacher)}" / "comparison.json").read_text())["networks"]
    assert set(networks) == ({"one"} if teacher == "null" else {"teacher", "one"})


def test_compare_notices_another_teacher(work: Path) -> None:
    folder = work / "moved" / "checkpoints"
    folder.mkdir(parents=True)
    checkpoint = torch.load(work / "student" / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["idd_seg"]["teacher"]["sha256"] = "0" * 64
    torch.save(checkpoint, folder / "last.ckpt")
    assert "is no longer the teacher" in clean_error(run_here("compare", "runs={student: moved}", cwd=work))


def test_a_checkpoint_holds_the_student_and_no_teacher(work: Path) -> None:
    saved = read_checkpoint(work / "student" / "checkpoints" / "last.ckpt")
    assert not [key for key in saved.weights if key.startswith("teacher")]
    assert saved.metadata["teacher"]["sha256"]
    student, data = student_from(saved), data_from(saved, None)
    for key, value in student.state_dict().items():
        assert torch.equal(value, saved.weights[f"student.{key}"]), key
    expected = json.loads((work / "student" / "metrics.json").read_text())["last"]["miou"]
    assert evaluate(student, data, "val", torch.device("cpu")).miou == pytest.approx(expected, abs=1e-6)


def test_a_teacher_of_other_classes_is_refused(work: Path) -> None:
    teacher = next((work / "cache" / "teachers").glob("*/checkpoints/last.ckpt"))
    checkpoint = torch.load(teacher, weights_only=True)
    checkpoint["idd_seg"]["class_names"] = ["road", "sky"]
    torch.save(checkpoint, work / "other.ckpt")
    message = clean_error(run_here("train", *TINY, "teacher.checkpoint=other.ckpt", cwd=work))
    assert "trained for 2 classes, data=shapes has 11" in message


def test_a_teacher_of_another_architecture_is_refused_with_the_names_of_both(work: Path) -> None:
    named = ["teacher=r18_half", "teacher.checkpoint=student/checkpoints/last.ckpt", "hydra.run.dir=other"]
    message = clean_error(run_here("train", *TINY, *named, cwd=work))
    assert "is of another network than the teacher" in message
    of = r"resnet18 with PSPHead of options=\{.*\}"
    assert re.search(rf"The file is of {of}, and teacher=r18_half is {of}.*; teacher=\S+last\.ckpt takes", message)


@pytest.mark.parametrize("words", [["teacher={}"], ["teacher.checkpoint={}"]])
def test_a_teacher_of_this_program_rebuilds_itself_from_its_file(words: list[str], work: Path) -> None:
    """Whatever network the data set would have chosen; the teacher is the demo's student here."""
    options = [word.format("student/checkpoints/last.ckpt") for word in words]
    folder = f"taught_{len(words[0])}"
    result = run_here("train", *TINY, *options, "loss=[ce,kd]", f"hydra.run.dir={folder}", cwd=work)
    assert result.returncode == 0, result.stderr
    assert ("teacher: resnet18 with PSPHead, as 'student/checkpoints/last.ckpt' says" in result.stdout) == (
        len(words[0]) == 10
    )
    said = json.loads((work / folder / "metrics.json").read_text())["teacher"]
    assert said["path"] == str((work / "student" / "checkpoints" / "last.ckpt").resolve())
    # The folder says which network it was, and a finished run stays one.
    again = run_here("train", *TINY, *options, "loss=[ce,kd]", f"hydra.run.dir={folder}", "resume=auto", cwd=work)
    assert "nothing to do" in again.stdout, again.stderr


def test_a_teacher_sees_pictures_as_it_was_trained_to(work: Path) -> None:
    plain = cfg_of("teacher=checkpoint", "teacher.checkpoint=student/checkpoints/last.ckpt", work=work)
    other = cfg_of(
        *("teacher=checkpoint", "teacher.checkpoint=student/checkpoints/last.ckpt"),
        *("data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]", "data.image_scale=0.5"),
        work=work,
    )
    first, second = (load_teacher(cfg.teacher.checkpoint, cfg, make_data(cfg)) for cfg in (plain, other))
    image = torch.rand(1, 3, 64, 64)
    seen = [
        (image - torch.tensor(list(cfg.data.mean)).view(3, 1, 1)) / torch.tensor(list(cfg.data.std)).view(3, 1, 1)
        for cfg in (plain, other)
    ]
    assert second.scale == 2.0  # it was trained on pictures of full size
    small = F.interpolate(seen[1], (32, 32), mode="bilinear", antialias=True)
    large = F.interpolate(
        F.interpolate(seen[0], (32, 32), mode="bilinear", antialias=True), (64, 64), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(second(small).logits, first(large).logits, rtol=1e-3, atol=1e-4)


def cfg_of(*words: str, work: Path) -> Any:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", [*TINY, *words])
    cfg.teacher.checkpoint = str(work / str(cfg.teacher.checkpoint))
    take_network(cfg)
    return cfg


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teacher=checkpoint"], "teacher=checkpoint is read from a file; give it as teacher=PATH"),
        (["teacher=./nowhere.ckpt"], "there is no file './nowhere.ckpt'"),
        (["teacher=https://example.org/t.ckpt"], "is a URL"),
    ],
)
def test_a_teacher_from_a_file_needs_one(words: list[str], message: str, work: Path) -> None:
    assert message in clean_error(run_here("train", *TINY, *words, "hydra.run.dir=wrong", cwd=work))


FOREIGN = [
    "os.mkdir",
    "idd_seg.models.pretrained.weights.pickle.loads",
    "idd_seg.models.pretrained.weights.read_weights",
    "idd_seg.data.pipeline.files.Path",
    "idd_seg.models.no_such_module.Head",
]


@pytest.mark.parametrize("target", FOREIGN)
@pytest.mark.parametrize("group", ["student", "data"])
def test_a_stored_configuration_calls_nothing_foreign(work: Path, target: str, group: str) -> None:
    saved = read_checkpoint(work / "student" / "checkpoints" / "last.ckpt")
    saved.metadata["config"][group]["palette" if group == "data" else "head"] = {"_target_": target, "path": "victim"}
    with pytest.raises(CheckpointError, match=re.escape(f"would call '{target}'")):
        data_from(saved, None) if group == "data" else student_from(saved)


def test_a_hostile_configuration_gets_one_clear_error(work: Path) -> None:
    checkpoint = torch.load(work / "student" / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["idd_seg"]["config"]["student"]["head"] = {"_target_": "os.mkdir", "path": "victim"}
    torch.save(checkpoint, work / "foreign.ckpt")
    message = clean_error(run_here("evaluate", "checkpoint=foreign.ckpt", cwd=work))
    assert "would call 'os.mkdir'" in message
    assert not (work / "victim").exists()


@pytest.mark.slow
def test_wandb_is_offline_without_a_key(work: Path) -> None:
    env = {"HOME": str(work), "WANDB_API_KEY": "", "NETRC": str(work / "netrc")}
    result = run("train", *TINY, "loss=ce", "logger=wandb", "hydra.run.dir=wandb_run", cwd=work, env=env)
    assert result.returncode == 0, result.stderr
    assert "wandb sync" in result.stdout
    assert len(list((work / "wandb_run" / "wandb").glob("offline-run-*"))) == 1
    assert (work / "wandb_run" / "metrics.csv").is_file()


@pytest.mark.slow
def test_tensorboard_writes_its_events(work: Path) -> None:
    result = run("train", *TINY, "loss=ce", "logger=tensorboard", "hydra.run.dir=tb", cwd=work)
    assert result.returncode == 0, result.stderr
    assert list((work / "tb" / "tensorboard").glob("**/events*"))


def network(width: int) -> Segmenter:
    options = {"stem_type": "deep", "stem_width": 8, "channels": [width * 2**i for i in range(4)], "layers": [1] * 4}
    return Segmenter("resnet18", partial(PSPHead), 11, options=options)


def shapes(**changes: Any) -> Shapes:
    return Shapes(
        size=(32, 32),
        scene_seed=0,
        train_length=16,
        val_length=4,
        test_length=4,
        name="shapes",
        num_classes=11,
        class_names=[str(i) for i in range(11)],
        palette=[[i, i, i] for i in range(11)],
        mean=[0.5] * 3,
        std=[0.2] * 3,
        batch_size=4,
        **changes,
    )


def distiller(
    terms: dict[str, Term], teacher: Segmenter | None, student: Segmenter | None = None, lr: float = 0.01
) -> Distiller:
    return Distiller(
        student or network(4),
        None if teacher is None else FrozenTeacher(teacher),
        terms,
        partial(torch.optim.SGD, lr=lr),
        partial(torch.optim.lr_scheduler.PolynomialLR, total_iters=4),
    )


def trainer(folder: Path, steps: int = 4, **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    )


def all_terms() -> dict[str, Term]:
    return {
        "ce": CrossEntropy(),
        "kd": PixelWise(),
        "idd": InterClassDistance(11, memory=0.9),
        "position": Position(padding=1, warmup_steps=1),
    }


def test_the_teacher_is_the_same_to_the_bit_after_training(tmp_path: Path) -> None:
    teacher = network(8)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    module = distiller(all_terms(), teacher)
    student = {key: value.clone() for key, value in module.student.state_dict().items()}
    trainer(tmp_path).fit(module, datamodule=shapes())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    changed = [key for key, value in module.student.state_dict().items() if not torch.equal(student[key], value)]
    assert len(changed) > 0.9 * len(student)


def test_state_goes_through_a_file_whole(tmp_path: Path) -> None:
    module = distiller(all_terms(), network(8))
    fit = trainer(tmp_path)
    fit.fit(module, datamodule=shapes())
    fit.save_checkpoint(tmp_path / "c.ckpt")
    content = torch.load(tmp_path / "c.ckpt", weights_only=True)
    other = distiller(all_terms(), network(8))
    other.load_state_dict(content["state_dict"])
    for key, value in module.state_dict().items():
        again = other.state_dict()[key]
        same = torch.equal(value, again) if isinstance(value, Tensor) else str(value) == str(again)
        assert same, key


def test_a_term_without_a_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="loss=kd needs a teacher"):
        distiller({"kd": PixelWise()}, None)


@pytest.mark.filterwarnings("ignore:the networks' outputs")
def test_a_step_that_is_left_out_leaves_no_trace(tmp_path: Path) -> None:
    """Neither in the student and its averages, nor in what the terms keep or train by themselves."""
    terms = {**all_terms(), "adversarial": Adversarial(11)}
    module = distiller(terms, network(8))
    module.guard = NonFiniteGuard(skip=1)
    states: list[dict[str, Any]] = []

    def spoil(network: Any, inputs: Any) -> Any:
        if module.training:
            states.append({k: copy.deepcopy(v) for k, v in module.state_dict().items()})
        return (torch.full_like(inputs[0], float("inf")),) if len(states) == 2 else None

    module.student.register_forward_pre_hook(spoil)
    trainer(tmp_path, 4, limit_val_batches=0).fit(module, datamodule=shapes())
    assert module.guard.skipped == 1
    before, after, later = states[1], states[2], states[3]
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else str(value) == str(after[key])
        assert same, key
    assert any(not torch.equal(v, later[k]) for k, v in after.items() if isinstance(v, Tensor))
    assert all(torch.isfinite(v).all() for v in module.state_dict().values() if isinstance(v, Tensor))


@pytest.mark.parametrize(("others", "number"), [({}, 1), ({"ce": CrossEntropy()}, 0)])
def test_a_classifier_that_nothing_trains_is_told(tmp_path: Path, others: dict[str, Term], number: int) -> None:
    terms = {"at": AttentionTransfer(), **others}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        trainer(tmp_path, 1).fit(distiller(terms, network(8)), datamodule=shapes())
    assert sum("trains the student's classifier" in str(one.message) for one in found) == number


class Broken(Term):
    """Fails from its second call on."""

    calls = 0

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        self.calls += 1
        return student.logits.mean() * (float("nan") if self.calls > 1 else 1.0)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_term_step_and_files(tmp_path: Path) -> None:
    module = distiller({"ce": CrossEntropy(), "broken": Broken()}, network(8))
    with pytest.raises(NonFiniteError) as caught:
        trainer(tmp_path).fit(module, datamodule=shapes())
    message = str(caught.value)
    assert "step 1" in message
    assert "broken = nan" in message
    assert "ce =" not in message
    assert message.count("shapes:0/train/") == 4
    assert all(torch.isfinite(p).all() for p in module.student.parameters())


def test_weights_that_went_bad_are_not_saved(tmp_path: Path) -> None:
    module = distiller({"ce": CrossEntropy()}, None)
    fit = trainer(tmp_path, val_check_interval=2, check_val_every_n_epoch=None)
    torch.nn.init.constant_(module.student.classifier[1].bias, float("inf"))
    with pytest.raises(NonFiniteError, match="logits are not finite"):
        fit.validate(module, datamodule=shapes(), verbose=False)


def test_an_interrupted_write_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, target)

    def full(content: object, file: IO[bytes]) -> None:
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="is the disk full"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, target)
    monkeypatch.undo()
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [target]


class RecordedBars(ProgressBars):
    """Keeps what the training bar showed when it was taken away."""

    shown: tuple[float, float | None, str] | None = None

    def _stop(self) -> None:
        if self.bars is not None and self.bars.tasks:
            task = self.bars.tasks[0]
            self.shown = task.completed, task.total, str(task.fields["note"])
        super()._stop()


def test_the_bar_counts_steps_over_epochs(tmp_path: Path) -> None:
    bars = RecordedBars(seconds=0)
    fit = trainer(tmp_path, steps=6, callbacks=[bars], val_check_interval=3, check_val_every_n_epoch=None)
    fit.fit(distiller({"ce": CrossEntropy()}, None), datamodule=shapes())
    assert bars.shown is not None
    assert bars.shown[:2] == (6, 6)
    assert "loss" in bars.shown[2]
    assert "mIoU" in bars.shown[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_its_exit_code(tmp_path: Path, number: int, code: int) -> None:
    options = [*TINY[:5], "trainer.max_steps=100000", "loss=ce", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "idd_seg.train", *options]

    def heed() -> None:
        # What was started in the background ignores it, and its children with it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, preexec_fn=heed, **pipes) as process:
        assert process.stdout is not None
        while "step" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors


def test_twins_start_from_the_same_weights_and_see_the_same_batches(work: Path) -> None:
    with (work / "student" / "metrics.csv").open() as file:
        distilled = next(row for row in csv.DictReader(file) if row["train/ce"])
    with (work / "twin" / "metrics.csv").open() as file:
        twin = next(row for row in csv.DictReader(file) if row["train/ce"])
    assert float(distilled["train/ce"]) == pytest.approx(float(twin["train/ce"]), rel=1e-5)


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    yield
    torch.set_num_threads(threads)
