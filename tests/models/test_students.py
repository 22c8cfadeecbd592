"""Every student of conf/student: what it announces, what is trained, and its way through a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.instantiate import make_student
from idd_seg.config.restore import student_from
from idd_seg.errors import CheckpointError
from idd_seg.models import backbone
from idd_seg.models.segmenter import Segmenter
from tests.config.test_composition import CONF, compose
from tests.helpers import TINY, run

QUICK = {"small", "r18_half", "mbv3_small", "convnext_atto", "segformer_b0"}
ALL = sorted(path.stem for path in (CONF / "student").glob("*.yaml"))
STUDENTS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL]
# With output_stride=8 of the shared options unless their file says otherwise.
STRIDES = {
    "lite0": 16,
    "lite2": 16,
    "mbv3_large": 16,
    "mbv3_small": 16,
    "convnext_atto": 32,
    "convnext_tiny": 32,
    "segformer_b0": 32,
}


def student(*overrides: str, auxiliary: bool = True) -> Segmenter:
    torch.manual_seed(0)
    return make_student(compose("train", *overrides, "pretrained=false", f"student.auxiliary={auxiliary}"))


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_trains_all_that_it_has_and_predicts_what_it_announces(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    backbone.say_native.cache_clear()
    network = student(f"student={name}").train()
    assert caplog.messages == []  # its file asks for no stride that it can't have
    assert network.backbone.strides[-1] == STRIDES.get(name, 8)
    found = network(torch.randn(2, 3, 65, 97))
    assert {key: m.shape[1] for key, m in found.features.items()} == network.channels
    assert found.auxiliary is not None
    assert found.auxiliary.shape[-2:] == found.features["stage3"].shape[-2:]
    (found.logits.square().mean() + found.auxiliary.square().mean()).backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
    with torch.no_grad():
        outputs = network.eval()(torch.randn(1, 3, 9, 70))
    assert outputs.auxiliary is None
    assert outputs.logits.isfinite().all()


def test_a_student_of_half_width_has_half_of_every_width() -> None:
    half, whole = student("student=r18_half").backbone, student("student=r18_deep").backbone
    convs = [[m for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (half, whole)]
    assert len(convs[0]) == len(convs[1]) > 20
    for ours, theirs in zip(*convs, strict=True):
        assert ours.out_channels * 2 == theirs.out_channels
        assert ours.in_channels * 2 == theirs.in_channels or ours.in_channels == theirs.in_channels == 3


def test_a_student_of_half_width_asks_for_no_weights() -> None:
    assert compose("train", "student=r18_half", "data=voc").student.pretrained is False


@pytest.mark.parametrize("head", ["fcn", "lraspp"])
def test_a_backbone_and_a_head_are_chosen_on_the_command_line(head: str) -> None:
    network = student("student=segformer_b0", "student.backbone=mobilenetv3_small_050", f"head@student.head={head}")
    assert type(network.head).__module__.endswith(f".{head}")
    assert network.backbone.strides == [4, 8, 16, 32]  # as the chosen student has it
    assert network.backbone.channels[-1] == 288


def test_other_widths_are_given_by_options() -> None:
    options = "+student.options={stem_type: deep, stem_width: 16, channels: [16, 32, 64, 128]}"
    network = student("student=r34", options, "student.pretrained=false")
    assert network.backbone.channels == [16, 32, 64, 128]


def test_a_backbone_without_dilation_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    backbone.say_native.cache_clear()
    with caplog.at_level(logging.WARNING):
        network = student("student=r18", "student.backbone=pvt_v2_b0")
    assert network.backbone.strides[-1] == 32
    assert len(caplog.messages) == 1


def save(network: Segmenter, node: dict[str, Any], path: Path) -> Path:
    weights = {f"student.{name}": value for name, value in network.state_dict().items()}
    card = {"format": 1, "class_names": None, "config": {"student": node}}
    torch.save({"state_dict": weights, "idd_seg": card}, path)
    return path


@pytest.mark.parametrize("name", ["segformer_b0", "convnext_atto"])
def test_a_student_comes_back_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    cfg = compose("train", f"student={name}", "pretrained=false")
    torch.manual_seed(0)
    network = make_student(cfg).eval()
    node: Any = OmegaConf.to_container(cfg.student, resolve=True)
    found = student_from(read_checkpoint(save(network, node, tmp_path / "last.ckpt")))
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert torch.equal(found(image).logits, network(image).logits)


@pytest.mark.parametrize(
    "target", ["os.system", "idd_seg.models.mit._load", "idd_seg.models.pretrained.weights.pickle.loads"]
)
def test_a_backbone_that_is_none_is_not_called(target: str, tmp_path: Path) -> None:
    cfg = compose("train", "student=segformer_b0", "pretrained=false")
    node: Any = OmegaConf.to_container(cfg.student, resolve=True)
    path = save(make_student(cfg), {**node, "backbone": {"_target_": target, "_args_": ["x"]}}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=f"would call '{target}'"):
        student_from(read_checkpoint(path))


def trains(folder: Path, *options: str) -> None:
    alone = [option for option in TINY if not option.startswith("teacher.")]
    done = run("train", *alone, "teacher=none", "loss=ce", *options, "hydra.run.dir=out", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = run("evaluate", "checkpoint=out/checkpoints/last.ckpt", "hydra.run.dir=scores", cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*STRIDES, "r18_half", "effb0", "effb1"}))
def test_a_student_trains_and_is_evaluated(name: str, tmp_path: Path) -> None:
    trains(tmp_path, f"student={name}")


@pytest.mark.slow
@pytest.mark.parametrize("head", sorted(path.stem for path in (CONF / "head").glob("*.yaml")))
def test_a_head_is_distilled(head: str, tmp_path: Path) -> None:
    """The terms bring maps of other strides and widths together."""
    terms = "loss=[ce,kd,idd,position]"
    done = run("train", *TINY, f"head@student.head={head}", terms, "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
