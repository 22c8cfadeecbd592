"""Every YAML of conf/ composes, and every `_target_` in it exists."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from idd_seg.config.groups import config_dir
from idd_seg.runs.teacher import cache_key, teacher_config
from idd_seg.studies.plan import read_plan

CONF = config_dir()
ROOTS = sorted(p.stem for p in CONF.glob("*.yaml"))
CHOICES = sorted((p.parent.name, p.stem) for p in CONF.glob("*/*.yaml"))
# Groups that other groups take their parts from.
PARTS = {"head": "head@student.head"}
# Read by the files that take them in.
INSIDE = {"methods", "setting", "model", "frozen", "loader", "augment", "weight_schedule"}

# Experiments that change another one, and stand behind it.
BEFORE = {"camvid_cpu": "camvid_psp_r18_idd"}


def compose(root: str, *overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(root, list(overrides))


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for child in node.values():
            yield from targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from targets(child)


def check_targets(cfg: DictConfig) -> None:
    for target in targets(OmegaConf.to_container(cfg, resolve=False)):
        module, _, name = target.rpartition(".")
        assert hasattr(importlib.import_module(module), name), target


@pytest.mark.parametrize("root", ROOTS)
def test_every_entry_point_composes(root: str) -> None:
    check_targets(compose(root, *(["study=shapes"] if root == "study" else [])))


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group: str, name: str) -> None:
    if group in INSIDE or name in INSIDE:
        assert OmegaConf.load(CONF / group / f"{name}.yaml")
        return
    if group == "study":
        assert read_plan(OmegaConf.to_container(compose("study", f"study={name}").study)).methods
        return
    if group == "download":
        check_targets(compose("prepare", f"data={name}"))
        return
    option = f"[{BEFORE[name]},{name}]" if name in BEFORE else name
    cfg = compose("train", f"{PARTS.get(group, group)}={option}")
    check_targets(cfg)


@pytest.mark.parametrize("term", sorted(p.stem for p in (CONF / "loss").glob("*.yaml")))
def test_every_term_has_a_flat_weight(term: str) -> None:
    cfg = compose("train", f"loss=[{term}]", f"loss.{term}_weight=0.125")
    assert cfg.loss[term].weight == 0.125


def test_an_experiment_overrules_the_data_set_and_the_command_line_overrules_both() -> None:
    assert compose("train").teacher.name == "medium"
    assert compose("train", "student=r18").student.backbone == "resnet18"
    assert compose("train", "student=mbv2").student.backbone == "mobilenetv2_100"
    assert compose("train", "data=voc").teacher.name == "r101"


RECIPES = sorted(path.stem.removesuffix("_idd") for path in (CONF / "experiment").glob("*_idd.yaml"))


def test_there_is_a_recipe_for_each_benchmark() -> None:
    assert {compose("train", f"experiment={name}_idd").data.name for name in RECIPES} == {
        *("camvid", "cityscapes", "voc", "ade20k")
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_twins_differ_by_distillation_alone(recipe: str) -> None:
    for behind in ("", ",camvid_cpu") if recipe.startswith("camvid") else ("",):
        ours, twin = (compose("train", f"experiment=[{recipe}_{loss}{behind}]") for loss in ("idd", "ce"))
        assert set(twin.loss) == {"ce", "ce_weight"}
        assert {"idd", "position", "kd"} < set(ours.loss)
        for group in ("student", "data", "optimizer", "scheduler", "trainer", "seed", "pretrained"):
            assert ours[group] == twin[group], group


def test_a_data_set_owns_its_classes() -> None:
    for path in sorted((CONF / "data").glob("*.yaml")):
        if path.stem == "folder":
            continue  # its classes lie beside the pictures
        data = compose("train", f"data={path.stem}").data
        assert len(data.class_names) == len(data.palette) == data.num_classes, path
        # The owner of ADE20K gives one colour to road and skyscraper.
        assert len({tuple(colour) for colour in data.palette}) >= data.num_classes - (path.stem == "ade20k"), path


def test_conf_is_found_in_the_checkout() -> None:
    assert Path(__file__).parents[2] / "conf" == CONF


@pytest.mark.parametrize(
    "option",
    [
        *("trainer.max_steps=7", "seed=3", "loss=[ce,kd]", "student=mbv2", "trainer.accumulate_grad_batches=2"),
        *(
            "callbacks=average",
            "callbacks=pruning",
            "++trainer.limit_train_batches=2",
            "++trainer.max_time=00:00:01:00",
        ),
        *("skip_non_finite=3", "trainer=ddp", "trainer.gradient_clip_val=1", "balance=gradient"),
    ],
)
def test_the_students_options_do_not_touch_the_teacher(option: str) -> None:
    options = ("data=camvid", "teacher=r18_half", "data.root=/nowhere")
    plain, other = (teacher_config(compose("train", *options, *more)) for more in ([], [option]))
    assert cache_key(plain) == cache_key(other)
    # Nor what is done at its training, beside where it is computed.
    assert plain.callbacks.keys() == other.callbacks.keys()
    for group in ("student", "loss", "optimizer", "scheduler", "balance", "skip_non_finite"):
        assert plain[group] == other[group], group
    where = ("strategy", "val_check_interval")
    assert {k: v for k, v in plain.trainer.items() if k not in where} == {
        k: v for k, v in other.trainer.items() if k not in where
    }


@pytest.mark.parametrize(
    "option", ["teacher.training.max_steps=7", "data.held_out=5", "data.batch_size=2", "teacher=r34"]
)
def test_a_teacher_of_another_recipe_is_another(option: str) -> None:
    options = ("data=camvid", "teacher=r18_half", "data.root=/nowhere")
    keys = {cache_key(teacher_config(compose("train", *options, *more))) for more in ([], [option])}
    assert len(keys) == 2
