"""An option that nothing reads is refused, wherever it comes from; one that another refers to is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from idd_seg.config.groups import chosen_groups, options_of
from idd_seg.config.other_tools import EXAMPLES, NAMES
from tests.config.test_composition import compose
from tests.helpers import TINY, clean_error, run_here

UNREAD = [
    ("train", ["+foo=1"], "nothing reads the option 'foo'."),
    ("train", ["+sed=1"], "nothing reads the option 'sed'; did you mean 'seed'?"),
    ("train", ["+ckpt_path=x"], "nothing reads the option 'ckpt_path'; here it is resume=auto"),
    ("train", ["+max_epochs=3"], "nothing reads the option 'max_epochs'; here it is epochs"),
    ("train", ["+loss.kd_weight=2"], "nothing reads the option 'loss.kd_weight': it is one of loss=kd, which is not"),
    ("train", ["+loss.ce_wieght=2"], "nothing reads the option 'loss.ce_wieght'; did you mean 'loss.ce_weight'?"),
    ("train", ["+loss.own.temperature=2"], "nothing reads the option 'loss.own'"),
    ("train", ["+callbacks.every=2"], "nothing reads the option 'callbacks.every'"),
    ("train", ["+logger.project=2"], "nothing reads the option 'logger.project'"),
    ("train", ["+teacher.checkpiont=x"], "nothing reads the option 'teacher.checkpiont'; did you mean 'teacher.check"),
    ("train", ["+teacher.training.lr=1"], "nothing reads the option 'teacher.training.lr'"),
    ("train", ["+data.recipe.steps=1"], "nothing reads the option 'data.recipe.steps'"),
    ("train", ["+balance.x=1"], "nothing reads the option 'balance.x'"),
    ("train", ["+data.foo=1"], "data: there is no option 'foo'"),
    ("evaluate", ["checkpoint=x", "+spilt=test"], "nothing reads the option 'spilt'; did you mean 'split'?"),
    ("export", ["checkpoint=x", "+measure.sizes=1"], "nothing reads the option 'measure.sizes'; did you mean 'measur"),
    ("prepare", ["data=shapes", "+split=train"], "nothing reads the option 'split'; did you mean 'splits'?"),
]


@pytest.mark.parametrize(("command", "options", "message"), UNREAD, ids=lambda x: x[-1] if isinstance(x, list) else "")
def test_an_option_that_nothing_reads_is_refused(
    command: str, options: list[str], message: str, tmp_path: Path
) -> None:
    common = [*TINY, "loss=ce"] if command == "train" else []
    assert message in clean_error(run_here(command, *common, *options, cwd=tmp_path))


def test_an_option_that_another_refers_to_is_read(tmp_path: Path) -> None:
    own = ["+mine=7", "+my.rate=0.1", "seed=${mine}", "optimizer.lr=${my.rate}", "trainer.max_steps=0"]
    assert "trainer.max_steps must be" in clean_error(run_here("train", *TINY, "loss=ce", *own, cwd=tmp_path))


FILES = [
    ("optimizer: {lr: 1}", "the file of experiment=mine changes nothing: what it says is read as 'experiment'."),
    ("# @package _global_\noptimiser: {lr: 1}", "nothing reads the option 'optimiser'; did you mean 'optimizer'?"),
    ("# @package _global_\nteacher_optimizer: adamw", "nothing reads the option 'teacher_optimizer'"),
    ("# @package _global_\ntrainer: {max_epochs: 1}", "trainer.max_epochs=1 has no place here"),
    ("# @package _global_\nrate: -1\noptimizer: {lr: '${rate}'}", "optimizer.lr must be a number"),
]


@pytest.mark.parametrize(("text", "message"), FILES, ids=["no package", "mistyped", "a choice", "refused", "own"])
def test_a_file_of_ones_own_does_something_or_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    done = run_here("train", "--config-dir", "own", "loss=ce", "experiment=mine", cwd=tmp_path)
    assert message in clean_error(done)


def test_names_of_other_tools_lead_to_options_that_are_there() -> None:
    cfg = OmegaConf.to_container(compose("train", "data=folder", "optimizer=sgd"))
    for name in set(NAMES.values()):
        known = name in chosen_groups("train") or _has(cfg, name)
        assert known, name
    assert set(EXAMPLES) <= set(NAMES.values())
    assert "average" in options_of("callbacks")


def _has(cfg: object, dotted: str) -> bool:
    *path, last = dotted.split(".")
    for key in path:
        cfg = cfg[key]  # type: ignore[index]
    return last in cfg  # type: ignore[operator]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("lr0", "optimizer.lr"), ("max_epochs", "epochs"), ("iters", "trainer.max_steps"), ("bs", "data.ba")],
)
def test_a_name_of_other_tools_is_understood(typed: str, meant: str, tmp_path: Path) -> None:
    message = clean_error(run_here("train", f"{typed}=1", cwd=tmp_path))
    assert f"there is no option '{typed}'; here it is {meant}" in message
