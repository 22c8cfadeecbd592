"""The command line: help, configuration, and one clear message for every mistake."""

from __future__ import annotations

import os
import pickle
import re
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from idd_seg.callbacks.graceful_stop import SIGNALS
from idd_seg.config import command_line
from idd_seg.config.groups import config_dir
from tests.helpers import TINY, clean_error, run, run_here


def test_help_answers_at_once(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = run("train", "--help", cwd=tmp_path)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3
    assert result.returncode == 0
    assert "loss.idd_weight=0.5" in result.stdout
    assert "\nstudent=small " in result.stdout
    # What can be chosen, and nothing else.
    assert "of aspp, deeplabv3plus," in result.stdout
    assert "setting=" not in result.stdout
    assert "parts/" not in result.stdout


@pytest.mark.parametrize("command", sorted(path.stem for path in config_dir().glob("*.yaml")))
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    result = run_here(command, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"python -m idd_seg.{command}" in result.stdout
    lines = result.stdout.splitlines()
    assert len(lines) <= 55, "one screen"
    assert max(map(len, lines)) <= 150


def test_help_shows_the_options_of_what_is_chosen(tmp_path: Path) -> None:
    result = run_here("train", "--help=all", "data=voc", "student=r18", cwd=tmp_path)
    assert "data.train_list=train" in result.stdout
    assert "\nhydra" not in result.stdout
    assert clean_error(run_here("train", "--help", "data=vox", cwd=tmp_path)).startswith("error: there is no data=vox")
    nothing = clean_error(run_here("train", "--help=los", cwd=tmp_path))
    assert nothing == "error: --help=los: no option and no group has this name. --help=all lists all of them"


def test_cfg_job_prints_the_configuration(tmp_path: Path) -> None:
    result = run("train", "--cfg", "job", "data=voc", "student=r18", cwd=tmp_path)
    assert result.returncode == 0
    assert "backbone: resnet18" in result.stdout
    assert not (tmp_path / "outputs").exists()


MISTAKES = [
    (["loss.idd_wieght=1"], "no option 'loss.idd_wieght'; did you mean 'loss.idd_weight'?"),
    (["trainer.max_stepz=3"], "did you mean 'trainer.max_steps'?"),
    (["datta=voc"], "did you mean 'data'?"),
    (["student=r19"], "there is no student=r19; did you mean 'r18'?"),
    (["loss=[ce,idx]"], "there is no loss=idx; did you mean 'idd'? The choices are adversarial, afdcd, apd, at,"),
    (["loss=ce", "loss.idd_weight=1"], "it is one of loss=idd, which is not chosen"),
    (
        ["data.root=/x"],
        "it is one of data=ade20k, data=camvid, data=cityscapes,",
    ),
    (["loss.idd_weight=-1"], "loss.idd_weight must be a finite number >= 0, got -1"),
    (["loss.kd_weight=much"], "loss.kd_weight must be a number, got 'much'"),
    (["loss.idd.scope=planet"], "loss.idd.scope must be image or batch or world, got 'planet'"),
    (
        ["loss.idd.taps=[stage9]"],
        "loss.idd: unknown tap 'stage9'; the network gives stage1, stage2, stage3, stage4, head",
    ),
    (["loss.position.depth=3"], "loss.position: a feature map of 4 x 4 is too small for the position reader"),
    (["loss.kd.temperature=0"], "loss.kd: temperature must be > 0 and finite, got 0"),
    (["optimizer.lr=fast"], "optimizer.lr must be a number, 0 to 1e+06, got 'fast'"),
    (["loss=ce", "loss.ce_weight=0"], "no term with a weight above 0"),
    (["teacher=none"], "teacher=none, but loss=kd,cwd needs a teacher"),
    (["student.backbone=resnet19", "loss=ce"], "did you mean 'resnet18'?"),
    (["data.batch_size=1"], "needs at least 2 images"),
    (["data.batch_size=9999"], "data.batch_size=9999 is more than"),
    (["data.size=[16,16]"], "at least 32 pixels a side"),
    (["teacher.checkpoint=nowhere.ckpt"], "there is no file 'nowhere.ckpt'"),
    (["teacher.checkpoint=https://example.org/t.ckpt"], "is a URL"),
    (
        ["trainer.max_steps=0"],
        "trainer.max_steps must be a whole number from 1 to 2147483647, e.g. 40000, or auto, got '0'",
    ),
    (
        ["trainer.max_steps=1e3"],
        "trainer.max_steps must be a whole number from 1 to 2147483647, e.g. 40000, or auto, got '1000.0'",
    ),
    (["trainer.devices=99999999999999999999", "loss=ce"], "without a GPU up to "),
    (["trainer.max_steps=99999999999999999999"], "trainer.max_steps must be a whole number from 1 to 2147483647"),
    (["data.image_scale=inf"], "data.image_scale must be above 0, up to 16, got inf"),
    (["student.backbone=1e-45", "loss=ce"], "backbone must be the name of a timm network"),
    (["trainer.num_nodes=x"], "trainer.num_nodes must be a whole number, got 'x'"),
    (["data.augment=none"], "data.augment must be a group of options with a _target_ or null, got 'none'"),
    (["data.size=256"], "data.size must be a list of 2 whole numbers, got '256'"),
    (["data.size=[32]"], "data.size must be a list of 2 whole numbers, got [32]"),
    (["data.mean=0.5"], "data.mean must be a list of numbers, got '0.5'"),
    (["data.ignore_index=1"], "data.ignore_index=1 is the class 'fine grain'; take a value that is no class (255)"),
    (["loss.kd.temperature=warm"], "loss.kd.temperature must be a number, got 'warm'"),
    (["loss=[ce,cwd]", "loss.cwd.tap=[logits]"], "loss.cwd.tap must be a word, got ['logits']"),
    (["loss=[ce,kd,kd]"], "loss=[...] names 'kd' twice"),
    (["student.dropout=x"], "student.dropout must be a number, got 'x'"),
    (["student.head.bins=[0]", "loss=ce"], "head.bins must be numbers of cells >= 1, got [0]"),
    (["callbacks.throughput.every=0", "loss=ce"], "callbacks.throughput.every must be a whole number >= 1, got '0'"),
    (["callbacks=average", "callbacks.average.decay=x"], "callbacks.average.decay must be a number, got 'x'"),
    (["head=aspp"], "there is no option 'head': a head belongs to a network. The student's: head@student.head=psp"),
    (["setting=shapes"], "there is no option 'setting': conf/study/setting/ holds parts of other files."),
    (["frozen=base"], "there is no option 'frozen': conf/parts/frozen/ holds parts of other files. --help=all lists"),
    (
        ["augment=field"],
        "there is no option 'augment': conf/parts/augment/ holds parts of other files; what they say stands in data.",
    ),
    (["parts/recipe=field"], "there is no option 'parts/recipe': conf/parts/recipe/ holds parts of other files;"),
    (["study=shapes"], "there is no option 'study': conf/study/ holds choices of other commands."),
    (["teacher=small"], "there is no teacher=small. The choices are checkpoint, cirkd_deeplabv3_r101, "),
    (["data=folder"], "the option 'data.root' has no value; give one: data.root=..."),
    (["trainer.accelerator=tpux"], "trainer: "),
    (["seed=-1"], "seed must be a whole number in 0 .. 2**32 - 1, got '-1'"),
    (["loss=[]"], "there is no term; choose some"),
    (["seed"], "'seed' has no value; options are written option=value"),
    (
        ["experiment=voc_psp_r18_idd", "teacher=none", "data.root=/x"],
        "the choices don't go together: one of them sets 'head@teacher.model.head'",
    ),
]


@pytest.mark.parametrize(
    ("module", "checkpoint", "message"),
    [
        ("predict", "nowhere.ckpt", "there is no file 'nowhere.ckpt'"),
        ("export", "https://host/a.ckpt", "is a URL; download the file"),
        ("label", "nowhere.ckpt", "there is no file 'nowhere.ckpt'"),
        ("evaluate", "a_run", "is a run folder; give a checkpoint of it: 'a_run/checkpoints/last.ckpt'"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_told_at_once(
    module: str, checkpoint: str, message: str, tmp_path: Path
) -> None:
    """Before PyTorch is imported, which takes seconds."""
    (tmp_path / "a_run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "a_run" / "checkpoints" / "last.ckpt").touch()
    words = [f"checkpoint={checkpoint}", *(["input=photos"] if module in ("label", "predict") else [])]
    command = [sys.executable, "-X", "importtime", "-m", f"idd_seg.{module}", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert message in clean_error(done)
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "omegaconf" in imported
    assert "torch" not in imported


QUOTED = ["a=b", "a[1]", "[a]b", "a(b)", "a#b", "~/x", "dé", "a{b}", "it's", 'a"b', "a;b", "0_loss=ce,seed=0", "a,b"]


@pytest.mark.parametrize("value", QUOTED)
def test_a_value_that_needs_quotes_is_told_how_to_write_it(value: str, tmp_path: Path) -> None:
    message = clean_error(run_here("evaluate", f"checkpoint={value}", cwd=tmp_path))
    assert message.startswith(f"error: checkpoint: the value {value} needs quotes for ")
    typed = shlex.split(re.split(" in it: type ", message)[1])[0].rstrip(";")
    assert typed.startswith('checkpoint="')
    # What is told to be typed means the value.
    assert f"there is no file '{value}'" in clean_error(run_here("evaluate", typed, cwd=tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["runs={a: x=y, b: out/z}"], """type 'runs={a: "x=y", b: out/z}'"""),
        (["ru ns=a"], "'ru ns=a' can't be read: options are written option=value"),
        (["=a"], "an option has no name; options are written option=value"),
        (["runs={a: x}", "root=${nowhere}"], "${nowhere} refers to an option that is not there"),
    ],
    ids=lambda x: x[-1] if isinstance(x, list) else "",
)
def test_grammar_is_explained(options: list[str], message: str, tmp_path: Path) -> None:
    assert message in clean_error(run_here("compare", *options, cwd=tmp_path))


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ("loss=ce,seed=0", "0_loss-ce_seed-0"),
        ("loss=[ce,kd],optimizer.lr=0.1", "0_loss-ce_kd_optimizer.lr-0.1"),
        ("+data.root=/data/dé (2)#", "0_data.root-data_d_2"),
        ("x=" + "a" * 200, "0"),
    ],
)
def test_folders_of_a_sweep_need_no_quotes(options: str, folder: str, tmp_path: Path) -> None:
    assert command_line._job_folder(0, options, str(tmp_path)) == folder
    override = OverridesParser.create().parse_override(f"checkpoint=out/{folder}/last.ckpt")
    assert override.value() == f"out/{folder}/last.ckpt"
    # A sweep that an earlier version began goes on in its folders.
    before = f"0_{options}".replace("/", "_")
    if len(before) < 150:
        (tmp_path / before).mkdir()
        assert command_line._job_folder(0, options, str(tmp_path)) == before


# Of each kind one as a process of its own: what Hydra refuses, and what only the networks know.
ALONE = ("loss.idd_wieght=1", "loss.idd.taps=[stage9]")


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_gets_one_clear_error(arguments: list[str], message: str, tmp_path: Path) -> None:
    groups = {a.split("=")[0] for a in arguments}
    tiny = [o for o in TINY if o.split("=")[0] not in groups and not (o.startswith("teacher.") and "teacher" in groups)]
    tiny = [] if any("root" in a or a.startswith("data=") for a in arguments) else tiny
    start = run if arguments[0] in ALONE else run_here
    assert message in clean_error(start("train", *tiny, *arguments, cwd=tmp_path))


def test_the_users_own_command_without_voc(tmp_path: Path) -> None:
    result = run_here("train", "data=voc", "student=r18", "loss.idd_weight=0.5", cwd=tmp_path)
    message = clean_error(result)
    assert "VOCdevkit/VOC2012" in message
    assert "data.root=PATH" in message
    assert "python -m idd_seg.prepare data=voc" in message


def test_full_error_shows_the_stack_trace(tmp_path: Path) -> None:
    result = run("train", "trainer.max_steps=0", cwd=tmp_path, env={"HYDRA_FULL_ERROR": "1"})
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = clean_error(run_here("train", *TINY, "hydra.run.dir=file/run", cwd=tmp_path))
    assert "file" in message


def test_no_weights_offline_says_what_to_do_at_once(tmp_path: Path) -> None:
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    result = run("train", *TINY, "loss=ce", "student=r18", "student.pretrained=true", cwd=tmp_path, env=env)
    message = clean_error(result)
    assert "student.weights=PATH" in message
    assert "student.pretrained=false" in message


def test_a_folder_whose_name_is_a_number_is_that_folder(tmp_path: Path) -> None:
    message = clean_error(run_here("train", "data=folder", "data.root=1e3", cwd=tmp_path))
    assert "'1e3/classes.yaml'" in message


def test_a_network_that_nobody_has_weights_of_says_so(tmp_path: Path) -> None:
    message = clean_error(run_here("train", *TINY, "loss=ce", "student=small", "pretrained=true", cwd=tmp_path))
    assert "there are no ImageNet weights for backbone 'resnet18' with student.options={'stem_type': 'deep'" in message
    assert "train from scratch with student.pretrained=false" in message


@pytest.mark.parametrize("command", ["evaluate", "train", "predict", "export"])
def test_a_file_that_would_call_something_is_never_advised_to_be_read(command: str, tmp_path: Path) -> None:
    torch.save({"model": Hostile(tmp_path / "victim")}, tmp_path / "c.pth")
    options = {
        "train": [*TINY, "loss=ce", "student.weights=c.pth"],
        "predict": ["checkpoint=c.pth", "input=c.pth"],
    }.get(command, ["checkpoint=c.pth"])
    message = clean_error(run_here(command, *options, cwd=tmp_path))
    assert (
        "holds more than weights and plain values, or is damaged, and was not opened: it names posix.mkdir" in message
    )
    assert "weights_only" not in message
    assert not (tmp_path / "victim").exists()


def test_a_real_data_set_needs_a_teacher_with_weights(tmp_path: Path) -> None:
    make_camvid(tmp_path / "camvid")
    options = ["data.root=camvid", "data.batch_size=2", "pretrained=false", "loss.kd_weight=2"]
    message = clean_error(run_here("train", "data=camvid", *options, cwd=tmp_path))
    assert (
        "python -m idd_seg.train data=camvid student=r101 teacher=none loss=ce data.root=camvid data.batch_size=2 "
        "pretrained=false; then"
    ) in message
    assert "teacher.checkpoint=PATH" in message


def make_camvid(root: Path, value: int = 3) -> None:
    for split in ("train", "val"):
        for folder, mode, colour in ((split, "RGB", (90, 90, 90)), (f"{split}annot", "L", value)):
            (root / folder).mkdir(parents=True)
            for i in range(4):
                Image.new(mode, (48, 40), colour).save(root / folder / f"a {i}é.png")


def camvid_run(tmp_path: Path, *arguments: str, start: Any = run_here) -> str:
    options = ["data=camvid", "data.root=camvid", "student=small", "loss=ce", "pretrained=false", "data.batch_size=2"]
    return clean_error(start("train", *options, "trainer.max_steps=2", *arguments, cwd=tmp_path))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_named_also_from_a_worker(tmp_path: Path, workers: int) -> None:
    make_camvid(tmp_path / "camvid")
    bad = tmp_path / "camvid" / "train" / "a 1é.png"
    bad.write_bytes(bad.read_bytes()[:40])
    message = camvid_run(tmp_path, f"data.num_workers={workers}", start=run if workers else run_here)
    assert "a 1é.png" in message
    assert "truncated" in message


def test_a_label_value_outside_the_classes_is_named(tmp_path: Path) -> None:
    make_camvid(tmp_path / "camvid", value=37)
    before = [signal.getsignal(number) for number in SIGNALS]
    message = camvid_run(tmp_path)
    # The training that failed has given its signals back: the next job of a sweep may be interrupted.
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert "value 37" in message
    assert ".png" in message


def test_an_image_without_a_label_is_named(tmp_path: Path) -> None:
    make_camvid(tmp_path / "camvid")
    (tmp_path / "camvid" / "valannot" / "a 2é.png").unlink()
    assert "a 2é.png" in camvid_run(tmp_path)


class Hostile:
    """Would create a file if it were unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "hostile", "of something else"])
def test_an_unusable_checkpoint(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "c.ckpt", tmp_path / "victim"
    if kind == "empty":
        path.touch()
    elif kind == "truncated":
        torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "hostile":
        path.write_bytes(pickle.dumps(Hostile(victim)))
    elif kind == "of something else":
        torch.save({"model": {}}, path)
    start = run if kind == "hostile" else run_here
    message = clean_error(start("evaluate", f"checkpoint={path}", cwd=tmp_path))
    assert str(path) in message
    assert not victim.exists()


def test_evaluate_without_a_checkpoint(tmp_path: Path) -> None:
    assert "checkpoint=..." in clean_error(run_here("evaluate", cwd=tmp_path))


def test_compare_without_runs(tmp_path: Path) -> None:
    assert "runs=..." in clean_error(run_here("compare", cwd=tmp_path))
