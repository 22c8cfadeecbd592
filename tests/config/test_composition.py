"""Every YAML of conf/ composes, and every `_target_` in it exists."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from idd_seg.config.command_line import in_full
from idd_seg.config.groups import HEAD, chosen_groups, config_dir, groups, options_of
from idd_seg.config.instantiate import term_weights
from idd_seg.config.teacher_plan import cache_key, teacher_config
from idd_seg.config.trainer_options import check_trainer
from idd_seg.config.unread import refuse_unread
from idd_seg.studies.plan import read_plan

CONF = config_dir()
ROOTS = sorted(p.stem for p in CONF.glob("*.yaml"))
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/**/*.yaml"))
CHOICES = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml"))]
# Hydra's own apart, what nobody chooses: it is taken in by the defaults of other files.
INSIDE = [file for file in FILES if file.startswith(("parts/", "study/")) and file.count("/") == 2]

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
    cfg = compose(root, *(["study=shapes"] if root == "study" else []))
    check_targets(cfg)
    refuse_unread(cfg, root)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group: str, name: str) -> None:
    if group == "study":
        assert read_plan(OmegaConf.to_container(compose("study", f"study={name}").study)).methods
        return
    option = f"[{BEFORE[name]},{name}]" if name in BEFORE else name
    cfg = compose("train", f"{HEAD if group == 'head' else group}={option}")
    check_targets(cfg)
    refuse_unread(cfg, "train")
    if group != "callbacks" or name != "pruning":  # which asks Hydra for the sweep it is in
        check_trainer(cfg)


@pytest.mark.parametrize("file", INSIDE)
def test_every_part_composes(file: str) -> None:
    """Its `_target_` values exist, and what it takes in itself is there."""
    group, _, name = file.rpartition("/")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        # A part may ask which optimizer a teacher has, which only a whole configuration says.
        part = hydra.compose(None, [f"+{group}@part={name}", "+teacher_optimizer=sgd"]).part
    assert part
    check_targets(part)


@pytest.mark.parametrize("file", INSIDE)
def test_every_part_is_taken_in_by_a_file(file: str) -> None:
    group, _, name = file.rpartition("/")
    if group == "parts/download":
        assert f"data/{name}" in FILES
        assert "download" in compose("prepare", f"data={name}")
        return
    near = group.rpartition("/")[2]  # of a neighbour of the file
    taken = re.compile(rf"- (/{group}(/{name}@|@.*: {name}$)|{near}@.*: {name}$|{name}$)", re.M)
    others = [path for path in CONF.rglob("*.yaml") if path.relative_to(CONF).with_suffix("").as_posix() != file]
    assert any(taken.search(path.read_text(encoding="utf-8")) for path in others)


def test_every_group_is_chosen_by_a_command_or_holds_parts() -> None:
    chosen = {group.split("@")[0] for root in ROOTS for group in chosen_groups(root)}
    assert chosen == {group for group in groups() if "/" not in group}
    assert {group.split("/")[0] for group in groups() if "/" in group} == {"parts", "study"}


def test_studies_are_the_choices_of_study_and_their_parts_are_not() -> None:
    assert options_of("study") == sorted(path.stem for path in (CONF / "study").glob("*.yaml"))
    assert not {"methods", "setting"} & set(options_of("study"))
    assert chosen_groups("study") == ["study"]


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_file_begins_by_saying_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if not line.startswith("# @package")).startswith("# ")


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
        *(
            "data.frozen_epochs=2",
            "teacher_cache=disk",
            "skip_non_finite=3",
            "trainer=ddp",
            "trainer.gradient_clip_val=1",
            "balance=gradient",
        ),
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


def test_a_teacher_from_before_reduce_zero_label_is_found() -> None:
    options = ("data=ade20k", "teacher=r18_half", "data.root=/nowhere")
    table = ", ".join(f"{value}: {value - 1}" for value in range(1, 151))
    before = (f"+data.label_values={{{table}}}", "+data.ignored=[0]", "data.reduce_zero_label=false")
    keys = {cache_key(teacher_config(compose("train", *options, *more))) for more in ((), before)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        (["data=folder", "data.root=own"], {"ce": 1, "kd": 3, "cwd": 27}),
        (["data=folder", "data.root=own", "loss=ce"], {"ce": 1}),
        (["data=folder", "data.root=own", "loss=[ce,kd,dist]", "loss.kd_weight=2"], {"ce": 1, "kd": 2, "dist": 1}),
        (["data=voc", "student=r18", "loss.idd_weight=0.5"], {"ce": 1, "kd": 3, "cwd": 27, "idd": 0.5}),
        (["data=voc"], {"ce": 1, "kd": 3, "cwd": 27}),
        (["data=shapes", "loss=[ce,kd,idd,position]"], {"ce": 1, "kd": 3, "idd": 1, "position": 1}),
    ],
    ids=" ".join,
)
def test_the_terms_and_their_weights(words: list[str], weights: dict[str, float]) -> None:
    assert term_weights(compose("train", *in_full(words, "train")).loss) == weights


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["data=voc"], 20.0),
        (["data=voc", "optimizer=adamw"], None),
        (["data=voc", "trainer=gpu", "trainer.gradient_clip_val=null"], None),
        (["data=folder", "data.root=own"], None),
        (["data=folder", "data.root=own", "optimizer=sgd"], 20.0),
        (["experiment=cityscapes_psp_r18_idd"], None),  # a published recipe
        (["experiment=camvid_psp_r18_ce"], None),
        (["data=voc", "data.recipe.gradient_clip=null"], None),
        (["data=voc", "data.recipe.gradient_clip=3", "optimizer=adamw"], 3),
        (["data=voc", "+data.recipe.gradient_clip.SGD=7", "~data.recipe.gradient_clip.sgd"], 7),
        (["data=voc", "~data.recipe.gradient_clip"], None),  # a recipe of before
        (["data=voc", "optimizer._target_=torch.optim.RMSprop"], None),
        (["data=shapes"], None),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_sgd_alone_clips_gradients(words: list[str], value: float | None) -> None:
    assert compose("train", *words).trainer.gradient_clip_val == value


def test_a_teacher_that_is_trained_by_the_way_is_not_clipped() -> None:
    cfg = compose("train", "data=camvid", "teacher=r18_half", "data.root=/nowhere")
    assert (cfg.trainer.gradient_clip_val, teacher_config(cfg).trainer.gradient_clip_val) == (20.0, None)


@pytest.mark.parametrize(
    ("options", "student", "teacher"),
    [
        ([], "AdamW 0.002", "AdamW 0.002"),
        (["optimizer=sgd"], "SGD 0.02", "AdamW 0.002"),  # the student's choice leaves the teacher as it is
        (["teacher_optimizer=sgd"], "AdamW 0.002", "SGD 0.02"),
        (["teacher=medium"], "AdamW 0.002", "AdamW 0.002"),
        (["teacher=r50", "lr=0.01"], "AdamW 0.01", "AdamW 0.002"),
        (["teacher=none", "loss=ce"], "AdamW 0.002", None),
        (["teacher=imported"], "AdamW 0.002", None),
        (["experiment=lite_pair", "teacher_optimizer=sgd"], "AdamW 0.002", "SGD 0.02"),
    ],
)
def test_a_folder_is_trained_by_adamw(options: list[str], student: str, teacher: str | None) -> None:
    cfg = compose("train", *in_full(["data=folder", "data.root=own", *options], "train"))
    assert optimizer(cfg.optimizer) == student
    training = OmegaConf.select(cfg, "teacher.training")
    assert (None if training is None else optimizer(training.optimizer)) == teacher


def optimizer(node: DictConfig) -> str:
    return f"{node._target_.rpartition('.')[2]} {node.lr:g}"


def test_the_defaults_that_are_judged_on_facades_are_those_of_a_folder() -> None:
    plan = read_plan(OmegaConf.to_container(compose("study", "study=facade_defaults").study, resolve=True))  # type: ignore[arg-type]
    judged = compose("train", *plan.common, *plan.methods["kd+cwd_27"].overrides({}, 1.0))
    plain = compose("train", "data=folder", "data.root=own", "teacher=lite2", "student=lite0")
    for part in ("optimizer", "scheduler", "trainer", "loss", "balance"):
        assert judged[part] == plain[part], part
    assert judged.teacher.training == plain.teacher.training
