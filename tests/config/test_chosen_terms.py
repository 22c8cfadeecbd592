"""An option of a term that is not chosen chooses it; what is chosen by name stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from idd_seg.config.chosen_terms import added_terms, with_their_terms
from idd_seg.config.command_line import in_full
from idd_seg.config.from_python import composed
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
    ],
    ids=" ".join,
)
def test_a_term_is_added_to_those_that_are_chosen(words: list[str], added: str) -> None:
    assert with_their_terms(words, "train") == [*words, added]
    assert added in str(added_terms(words, [*words, added]))


@pytest.mark.parametrize(
    "words",
    [
        ["loss.kd_weight=2", "loss.cwd.tap=head", "loss.ce.ohem=0.7"],
        ["loss=[ce,kd]", "loss.idd_weight=1"],
        ["~loss", "loss.idd_weight=1"],
        ["loss.idk_weight=1"],
        ["data=nothing", "loss.idd_weight=1"],
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


def test_an_experiment_of_ones_own_keeps_its_terms(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /loss: [ce, mgd]\n")
    for flag in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"], ["-cd", str(tmp_path)]):
        words = [*flag, "experiment=mine", "loss.idd_weight=1"]
        assert with_their_terms(words, "train")[-1] == "loss=[ce,mgd,idd]"


def test_a_program_gets_the_same_terms() -> None:
    with composed(["data=shapes", "loss.idd_weight=0.5"]) as cfg:
        assert {"ce", "kd", "cwd", "idd"} <= set(cfg.loss)
        assert cfg.loss.idd.weight == 0.5


def test_a_mistyped_option_of_the_term_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"loss\.idd\.levle.*loss\.idd\.level"), composed(["loss.idd.levle=pixels"]):
        pass


def test_a_teacher_from_a_file_counts_as_a_choice() -> None:
    full = in_full(["teacher=./a.ckpt", "loss.idd_weight=1"], "train")
    assert full[-1] == "loss=[ce,kd,cwd,idd]"
