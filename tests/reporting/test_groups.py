"""Groups, twins, gains, and the tables of them."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest

from idd_seg.reporting.groups import Group, make_groups
from idd_seg.reporting.runs import read_run
from idd_seg.reporting.tables import csv_text, escape, latex_text
from idd_seg.reporting.teacher import Teachers, digest_of
from tests.reporting.folders import config, make_run


def groups_below(folder: Path) -> tuple[dict[str, Group], list[str]]:
    runs = [read_run(path, path.name) for path in sorted(folder.iterdir()) if path.is_dir()]
    groups, keys = make_groups(runs, Teachers(runs).miou_of)
    return {group.label: group for group in groups}, keys


def study(folder: Path) -> dict[str, Group]:
    """Twin 40 and 44, student 46 and 52, teacher 60 (in percent)."""
    teacher = make_run(folder / "teacher", config(teacher=False, student={"backbone": "resnet101"}), 0.60)
    for seed, twin, student in ((0, 0.40, 0.46), (1, 0.44, 0.52)):
        make_run(folder / f"ce.{seed}", config(seed=seed), twin)
        make_run(folder / f"idd.{seed}", config(("ce", "idd"), seed=seed), student, teacher=teacher)
    return groups_below(folder)[0]


def test_gain_is_paired_by_seed_and_the_gap_is_between_twin_and_teacher(tmp_path: Path) -> None:
    student = next(g for label, g in study(tmp_path).items() if "idd" in label)
    assert student.gain is not None
    assert student.gap is not None
    # Gains 6 and 8; of gaps 20 and 16.
    assert (student.gain.mean, student.gain.n, student.paired) == (pytest.approx(0.07), 2, True)
    assert student.gain.std == pytest.approx(0.02 / 2**0.5)
    assert student.gap.mean == pytest.approx((0.3 + 0.5) / 2)


def test_without_equal_seeds_the_gain_is_one_of_means(tmp_path: Path) -> None:
    make_run(tmp_path / "a", config(seed=1), 0.4)
    make_run(tmp_path / "b", config(("ce", "kd"), seed=2), 0.5)
    group = groups_below(tmp_path)[0]["b"]
    assert group.gain is not None
    assert (group.gain.mean, group.gain.std, group.paired) == (pytest.approx(0.1), None, False)


def test_an_average_of_the_weights_is_another_method(tmp_path: Path) -> None:
    average = {"average": {"_target_": "idd_seg.callbacks.average.Average", "decay": 0.999}}
    progress = {"progress": {"_target_": "idd_seg.callbacks.progress.progress"}}
    for seed, plain, averaged in ((0, 0.60, 0.66), (1, 0.61, 0.67)):
        make_run(tmp_path / f"plain.{seed}", config(seed=seed), plain)
        make_run(tmp_path / f"watched.{seed}", config(seed=seed + 2, callbacks=progress), plain)
        make_run(tmp_path / f"average.{seed}", config(seed=seed, callbacks={**progress, **average}), averaged)
    found = groups_below(tmp_path)[0].values()
    assert sorted(len(group.runs) for group in found) == [2, 4]


def test_another_student_is_no_twin(tmp_path: Path) -> None:
    make_run(tmp_path / "a", config(student={"backbone": "resnet50"}), 0.4)
    make_run(tmp_path / "b", config(("ce", "kd")), 0.5)
    assert all(group.gain is None for group in groups_below(tmp_path)[0].values())


def test_a_teacher_outside_is_read_beside_its_checkpoint(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "cache" / "teacher", config(teacher=False), 0.7)
    make_run(tmp_path / "runs" / "a", config(("ce", "kd")), 0.5, teacher=teacher)
    (group,) = groups_below(tmp_path / "runs")[0].values()
    assert group.teacher == pytest.approx(0.7)
    (teacher / "metrics.json").unlink()
    (group,) = groups_below(tmp_path / "runs")[0].values()
    assert group.teacher is None


def test_a_teacher_that_was_moved_is_known_by_its_hash(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "moved", config(teacher=False), 0.7)
    (teacher / "checkpoints").mkdir()
    (teacher / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    student = make_run(tmp_path / "student", config(("ce", "kd")), 0.5, teacher=tmp_path / "old")
    metrics = json.loads((student / "metrics.json").read_text())
    metrics["teacher"]["sha256"] = hashlib.sha256(b"weights").hexdigest()
    (student / "metrics.json").write_text(json.dumps(metrics))
    assert max(group.teacher or 0 for group in groups_below(tmp_path)[0].values()) == pytest.approx(0.7)
    (teacher / "checkpoints" / "last.ckpt").write_bytes(b"others")
    digest_of.cache_clear()
    assert all(group.teacher is None for group in groups_below(tmp_path)[0].values())


def test_a_group_is_called_by_its_name(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / f"{seed}_x", config(seed=seed, name="the twin"))
        make_run(tmp_path / f"1{seed}_x", config(("ce", "kd"), seed=seed, name="the student"))
    assert sorted(groups_below(tmp_path)[0]) == ["the student", "the twin"]


@pytest.mark.parametrize("separator", [".", "_seed", "/", "/seed", " - seed "])
def test_without_a_name_of_its_own_it_is_called_by_its_folder(tmp_path: Path, separator: str) -> None:
    for seed in (0, 1):
        make_run(tmp_path / f"twin{separator}{seed}", config(seed=seed))
        make_run(tmp_path / f"idd_2{separator}{seed}", config(("ce", "idd"), seed=seed))
    runs = [read_run(path.parent, path.parent.name) for path in sorted(tmp_path.rglob("run.json"))]
    assert sorted(group.label for group in make_groups(runs, lambda _: None)[0]) == ["idd_2", "twin"]


def test_equal_folders_are_told_apart_by_those_above_and_the_rest_by_options(tmp_path: Path) -> None:
    runs = []
    for i, (parent, lr) in enumerate((("a", 0.1), ("b", 0.2), ("c/x", 0.3), ("d/x", 0.4), ("e/p/q", 1), ("f/p/q", 2))):
        runs.append(read_run(make_run(tmp_path / parent / "run", config(optimizer={"lr": lr})), str(i)))
    found = [group.label for group in make_groups(runs, lambda _: None)[0]]
    assert found[:4] == ["a/run", "b/run", "c/x/run", "d/x/run"]
    assert found[4:] == ["p/q/run: optimizer.lr=1", "p/q/run: optimizer.lr=2"]


@pytest.mark.parametrize(
    "names", [("0", "1"), ("0_optimizer.lr=0.1", "1_x"), ("12-30-11-1_shapes", "12-30-12-1_shapes")]
)
def test_folders_that_name_themselves_give_way_to_options(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, lr in zip(names, (0.1, 0.2), strict=True):
        make_run(tmp_path / name, config(optimizer={"lr": lr}))
    assert sorted(groups_below(tmp_path)[0]) == ["optimizer.lr=0.1", "optimizer.lr=0.2"]


def test_options_that_say_the_same_are_one_axis(tmp_path: Path) -> None:
    for i, lr in enumerate((0.1, 0.2, 0.3)):
        make_run(tmp_path / str(i), config(optimizer={"lr": lr}, scheduler={"base": 2 * lr, "power": i % 2}))
    assert groups_below(tmp_path)[1] == ["optimizer.lr", "scheduler.power"]


def test_a_term_of_weight_0_is_none(tmp_path: Path) -> None:
    cfg = config(("ce", "idd"))
    cfg["loss"]["idd_weight"] = 0
    assert read_run(make_run(tmp_path / "a", cfg), "a").plain


def test_csv_has_a_row_a_run_and_no_formulas(tmp_path: Path) -> None:
    make_run(tmp_path / "=cmd()", config(), 0.4, state="failed", error="@SUM(1)")
    make_run(tmp_path / "b", config(("ce", "kd")), 0.5)
    groups, keys = groups_below(tmp_path)
    rows = {row["run"]: row for row in csv.DictReader(csv_text(list(groups.values()), keys).splitlines())}
    assert set(rows) == {"'=cmd()", "b"}
    assert rows["'=cmd()"]["error"] == "'@SUM(1)"
    assert float(rows["b"]["gain_over_twin"]) == pytest.approx(0.1)
    assert rows["b"]["loss"] == "ce+kd"


def test_latex_is_escaped_and_has_mean_and_spread(tmp_path: Path) -> None:
    text = latex_text(list(study(tmp_path).values()))
    assert r"& 2 & $49.00 \pm 4.24$ & $50.00 \pm 4.24$ & $7.00 \pm 1.41$ & 0.001 \\" in text
    assert text.startswith("\\begin{tabular}{lrrrrr}\n\\toprule")
    assert escape("a_b & 5% \\x{#$~^}") == (r"a\_b \& 5\% \textbackslash{}x\{\#\$\textasciitilde{}\textasciicircum{}\}")
