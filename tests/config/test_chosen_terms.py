"""An option of a term that is not chosen chooses it; what is chosen by name stays as it is."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from idd_seg.config.chosen_terms import BRINGING, added_terms, with_their_terms
from idd_seg.config.command_line import in_full
from idd_seg.config.from_python import composed
from idd_seg.config.groups import config_dir
from idd_seg.config.help import help_text
from idd_seg.distillation.term_checks import check_terms
from idd_seg.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (["data=voc", "student=r18", "loss.idd_weight=0.5"], "loss=[ce,kd,cwd,idd]"),
        (["loss.idd.level=pixels", "loss.dice_weight=1"], "loss=[ce,kd,cwd,idd,dice]"),
        (["-m", "loss.idd_weight=0,0.5,1"], "loss=[ce,kd,cwd,idd]"),
        (["-m", "data=voc,camvid", "loss.idd_weight=1"], "loss=[ce,kd,cwd,idd]"),
        (["loss.class_position_weight=1"], "loss=[ce,kd,cwd,class_position]"),
        (["experiment=cityscapes_psp_r18_idd", "loss.cwd_weight=9"], "loss=[ce,kd,idd,position,cwd]"),
        (["experiment=[camvid_psp_r18_idd,camvid_cpu]", "loss.at_weight=9"], "loss=[ce,kd,idd,position,at]"),
        (["hparams=weights_grid", "-m", "loss.cwd_weight=9"], "loss=[ce,kd,idd,position,cwd]"),
        (["--cfg", "job", "--package", "loss", "loss.idd_weight=1"], "loss=[ce,kd,cwd,idd]"),
        (["loss.idd={level:pixels}"], "loss=[ce,kd,cwd,idd]"),
        (["-m", "student=glob(r18*)", "loss.idd_weight=1"], "loss=[ce,kd,cwd,idd]"),
        (["-m", "experiment=camvid_cpu,facade", "loss.idd_weight=1"], "loss=[ce,kd,cwd,idd]"),
        (["-m", "experiment=[facade],[facade,facade_unlabelled]", "loss.idd_weight=1"], "loss=[ce,kd,cwd,idd]"),
    ],
    ids=" ".join,
)
def test_a_term_is_added_to_those_that_are_chosen(words: list[str], added: str) -> None:
    full = with_their_terms(words, "train")
    assert added in full
    assert [word for word in full if word != added] == words
    assert added in str(added_terms(words, full))


def test_the_choice_stands_among_the_options() -> None:
    """Hydra's parser of flags takes options only where no flag stands between them."""
    added = "loss=[ce,kd,cwd,idd]"
    words = ["data=shapes", "loss.idd_weight=1", "--cfg", "job"]
    assert with_their_terms(words, "train") == ["data=shapes", added, *words[1:]]
    assert with_their_terms(["-m", "loss.idd_weight=0,1"], "train") == ["-m", added, "loss.idd_weight=0,1"]


@pytest.mark.parametrize(
    "words",
    [
        ["loss.kd_weight=2", "loss.cwd.tap=head", "loss.ce.ohem=0.7"],
        ["loss=[ce,kd]", "loss.idd_weight=1"],
        ["~loss", "loss.idd_weight=1"],
        ["loss.idk_weight=1"],
        ["data=nothing", "loss.idd_weight=1"],
        ["teacher=null", "loss.idd_weight=1"],
        ["--config-path", "elsewhere", "loss.idd_weight=1"],
        ["loss@teacher.training.loss=[ce,dice]", "teacher.training.loss.dice_weight=1"],
        ["-m", "experiment=voc_psp_r18_idd,voc_psp_r18_ce", "loss.dice_weight=1"],
        ["data=shapes"],
    ],
    ids=" ".join,
)
def test_other_words_stay_as_they_are(words: list[str]) -> None:
    assert with_their_terms(words, "train") == words
    assert added_terms(words, words) is None


def test_commands_without_terms_are_left_alone() -> None:
    assert with_their_terms(["loss.idd_weight=1"], "predict") == ["loss.idd_weight=1"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with an experiment, a term, a data set and a main file of a user's own."""
    term = "dice_of_mine:\n  _target_: idd_seg.losses.dice.Dice\ndice_of_mine_weight: 1.0\n"
    own_terms = "defaults:\n  - override /loss: [ce, mgd]\n"
    files = {
        "experiment/mine": f"# @package _global_\n{own_terms}",
        "experiment/level": "# @package _global_\nloss: {idd: {level: pixels}}\n",
        "loss/dice_of_mine": term,
        "data/mine": "defaults:\n  - shapes\n  - override /loss@_global_.loss: [ce, mgd]\n",
        "main": "defaults:\n  - train\n  - override /loss: [ce, mgd]\n  - _self_\n",
    }
    for name, text in files.items():
        path = tmp_path / "conf of, mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "conf of, mine"


@pytest.mark.parametrize("flag", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]], ids=" ".join)
def test_an_experiment_of_ones_own_keeps_its_terms(flag: list[str], own: Path) -> None:
    words = [*(word.format(own) for word in flag), "experiment=mine", "loss.idd_weight=1"]
    assert "loss=[ce,mgd,idd]" in with_their_terms(words, "train")


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (["--config-dir=OWN", "loss.dice_of_mine_weight=2"], "loss=[ce,kd,cwd,dice_of_mine]"),
        (
            ["hydra.searchpath=['file://OWN']", "experiment=mine", "loss.dice_of_mine.smooth=2"],
            "loss=[ce,mgd,dice_of_mine]",
        ),
        (["--config-dir=OWN", "experiment=level", "loss.idd_weight=1"], "loss=[ce,kd,cwd,idd]"),
        (["--config-dir=OWN", "-cn", "main", "loss.idd_weight=1"], "loss=[ce,mgd,idd]"),
        (["--config-dir=OWN", "--config-name=main", "loss.idd_weight=1"], "loss=[ce,mgd,idd]"),
        (["--config-dir=OWN", "-m", "data=shapes,mine", "loss.idd_weight=1"], None),
        (["--config-dir=OWN", "-m", "data=mine", "loss.idd_weight=0,1"], "loss=[ce,mgd,idd]"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_files_of_ones_own_count(words: list[str], added: str | None, own: Path) -> None:
    more = [word.replace("OWN", str(own)) for word in words]
    assert [word for word in with_their_terms(more, "train") if word not in more] == ([added] if added else [])


def test_a_program_gets_the_same_terms(capsys: pytest.CaptureFixture[str]) -> None:
    with composed(["data=shapes", "loss.idd_weight=0.5"]) as cfg:
        assert {"ce", "kd", "cwd", "idd"} <= set(cfg.loss)
        assert cfg.loss.idd.weight == 0.5
    assert "terms: loss=[ce,kd,cwd,idd]" in capsys.readouterr().err


def test_a_group_of_options_may_be_given_at_once() -> None:
    with composed(["data=shapes", "loss.idd={level:pixels,side:near}"]) as cfg:
        assert (cfg.loss.idd.level, cfg.loss.idd.side, cfg.loss.idd.weight) == ("pixels", "near", 1.0)


def test_the_help_of_a_term_that_is_not_chosen() -> None:
    assert "loss.idd.level=classes" in help_text("train", ["--help=loss.idd"])
    assert help_text("train", ["--help=loss.mgd_weight"]).startswith("loss.mgd_weight=168.0")
    with pytest.raises(ConfigError, match="no option and no group"):
        help_text("train", ["--help=loss.nothing"])


def test_a_mistyped_option_of_the_term_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"loss\.idd\.levle.*loss\.idd\.level"), composed(["loss.idd.levle=pixels"]):
        pass


def test_a_teacher_from_a_file_counts_as_a_choice() -> None:
    full = in_full(["teacher=./a.ckpt", "loss.idd_weight=1"], "train")
    assert "loss=[ce,kd,cwd,idd]" in full


@pytest.mark.parametrize("words", [["loss=ce", "loss.idd_weight=1"], ["teacher.name=x", "loss.idd.level=1", "loss=ce"]])
def test_an_option_of_a_term_that_is_left_out_by_name_is_refused(words: list[str]) -> None:
    with (
        pytest.raises(ConfigError, match=r"one of loss=idd, which is not chosen; name it in loss="),
        composed(words),
    ):
        pass


def test_an_option_of_the_teachers_terms_says_how_they_are_chosen() -> None:
    words = ["teacher.training.loss.dice_weight=1"]
    with pytest.raises(ConfigError, match=r"chosen by loss@teacher.training.loss=\[...\]"), composed(words):
        pass


def test_the_drawing_names_the_terms_of_a_run_that_names_none() -> None:
    drawing = (config_dir().parent / "scripts/draw_flow.py").read_text(encoding="utf-8")
    names = re.findall(r'^    "(\w+)": ', drawing.partition("USUAL = {")[2].partition("}")[0], re.M)
    usual = yaml.safe_load((config_dir() / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    assert {"loss": names} in usual


def test_files_that_come_with_us_choose_terms_in_two_groups_alone() -> None:
    """`chosen_terms` looks at no choice of another group: a data set or a student brings no terms."""
    files = [path for path in config_dir().glob("*/*.yaml") if "override /loss" in path.read_text(encoding="utf-8")]
    chosen = {
        path.parent.name for path in files if re.search(r"override /loss(@_global_\.loss)?:", path.read_text("utf-8"))
    }
    assert chosen == set(BRINGING)


def test_terms_that_need_no_teacher_are_kept_by_the_hint() -> None:
    terms: Any = {
        name: SimpleNamespace(needs_teacher=needs) for name, needs in (("ce", False), ("kd", True), ("dice", False))
    }
    with pytest.raises(ConfigError, match=r"loss=kd needs a teacher; use loss=\[ce,dice\], or"):
        check_terms(terms, has_teacher=False)
