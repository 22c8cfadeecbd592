"""Checking a data set as a user does: the report, the contact sheets, the exit code, and names of any letters."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idd_seg import prepare
from idd_seg.data.camvid import CamVid
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.dataset_check.contact_sheet import classes_of, contact_sheet
from idd_seg.dataset_check.report import SHOWN, check
from idd_seg.errors import ConfigError, DataError
from idd_seg.plotting.contact_sheet import SIDE, overlay
from tests.commands import call
from tests.data import layouts
from tests.data.layouts import make_data, photograph, raw, save, values
from tests.data.sources import settings

SPLITS = ("train", "val", "test")


def camvid(root: Path, **changes: Any) -> CamVid:
    common = {"ignored": [11], "name": "camvid", **changes}
    names = common.pop("class_names", [f"class {i}" for i in range(11)])
    return CamVid(root=str(root), **{**settings(11, **common), "class_names": names})


def checked(data: SegmentationDataModule, folder: Path, splits: tuple[str, ...] = SPLITS) -> dict[str, Any]:
    """Check on one process, and return the report; problems are raised after it is written."""
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(DataError):
        check(data, splits, 1, 16, 0, folder)
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


# All is well


@pytest.mark.parametrize("name", sorted(layouts.LAYOUTS))
def test_a_data_set_without_fault(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = layouts.LAYOUTS[name](tmp_path), tmp_path / "out"
    data = make_data(name, root, "data.counts=null")
    out.mkdir()
    check(data, SPLITS, 1, 2, 0, out)
    report = json.loads((out / "report.json").read_text())
    assert list(report) == list(SPLITS)
    for split in SPLITS:
        with Image.open(out / f"{split}.png") as sheet:
            assert min(sheet.size) > 100
        assert report[split]["items"] == len(data.dataset(split))
        assert report[split]["problems"] == []
        assert list(report[split]["pixels"]) == [*data.class_names, "(ignored)"]
    labelled = [raw(Path(str(pair.label))) for pair in data.make_source("val").pairs]
    assert sum(report["val"]["pixels"].values()) == sum(label.size for label in labelled)
    assert str(out) in capsys.readouterr().out


def test_sizes_are_written_as_width_x_height(tmp_path: Path) -> None:
    root = layouts.voc(tmp_path)
    report = checked(make_data("voc", root, "data.counts=null"), tmp_path / "out", ("train",))
    sizes = {"{1} x {0}".format(*raw(path).shape) for path in (root / "SegmentationClass").iterdir()}
    assert set(report["train"]["sizes"]) <= sizes


def test_a_split_that_is_not_there_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.camvid(tmp_path)
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "testannot")
    out = tmp_path / "out"
    out.mkdir()
    check(camvid(root), SPLITS, 1, 4, 0, out)
    assert list(json.loads((out / "report.json").read_text())) == ["train", "val"]
    assert "split 'test' is left out" in capsys.readouterr().out


def test_a_data_set_without_a_test_split_is_checked_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CamVid, "splits", ("train", "val"))
    data, out = camvid(layouts.camvid(tmp_path)), tmp_path / "out"
    out.mkdir()
    check(data, SPLITS, 1, 4, 0, out)
    assert list(json.loads((out / "report.json").read_text())) == ["train", "val"]
    assert "split 'test' is left out: data=camvid has none" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no split 'test'; it has train, val"):
        check(data, ["test"], 1, 4, 0, out)


def test_an_unknown_split_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data=camvid has no split 'valid'; it has train, val, test"):
        check(camvid(tmp_path / "nowhere"), ["train", "valid"], 1, 4, 0, tmp_path)


# Something is wrong


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_that_is_needed_is_a_problem(split: str, tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    shutil.rmtree(root / split)
    report = checked(camvid(root), tmp_path / "out")
    (problem,) = report[split]["problems"]
    assert str(root / split) in problem
    other = {"train": "val", "val": "train"}[split]
    assert report[other]["problems"] == []
    assert report[other]["items"] > 0


def test_problems_of_all_splits_are_counted_and_the_sheets_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = layouts.camvid(tmp_path), tmp_path / "out"
    for place in ("train/0001TP_006690.png", "valannot/0016E5_07961.png", "test/0001TP_008550.png"):
        (root / place).write_bytes(b"")
    out.mkdir()
    with pytest.raises(DataError, match=rf"data=camvid: 3 problems; all of them are in {re.escape(str(out))}"):
        check(camvid(root), SPLITS, 1, 8, 0, out)
    report = json.loads((out / "report.json").read_text())
    assert [len(report[split]["problems"]) for split in SPLITS] == [1, 1, 1]
    assert all((out / f"{split}.png").is_file() for split in SPLITS)
    printed = capsys.readouterr().out
    assert printed.count("bad:") == 3


def test_a_split_without_one_good_file_has_no_sheet(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    for path in (root / "train").iterdir():
        path.write_bytes(b"")
    report = checked(camvid(root), tmp_path / "out")
    assert len(report["train"]["problems"]) == 4
    assert not (tmp_path / "out" / "train.png").exists()


def test_many_problems_are_printed_in_part_and_written_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layouts.camvid(tmp_path)
    for i in range(SHOWN + 7):
        (root / "train" / f"z{i:03d}.png").write_bytes(b"")
        save(np.zeros((3, 4), np.uint8), root / "trainannot" / f"z{i:03d}.png")
    report = checked(camvid(root), tmp_path / "out")
    assert len(report["train"]["problems"]) == SHOWN + 7
    printed = capsys.readouterr().out
    assert printed.count("bad:") == SHOWN
    assert "and 7 more" in printed


def test_a_split_that_is_there_in_part_is_a_problem(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    (root / "testannot" / "Seq05VD_f05100.png").unlink()
    report = checked(camvid(root), tmp_path / "out")
    assert "Seq05VD_f05100" in report["test"]["problems"][0]


def test_a_cache_hides_no_problem_of_the_test_split(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    (root / "test" / "0001TP_008550.png").write_bytes(b"")
    report = checked(camvid(root, cache="disk", cache_dir=str(tmp_path / "cache")), tmp_path / "out")
    assert "0001TP_008550" in report["test"]["problems"][0]


# Names


LETTERS = ["a b", "größe 街 🚗", "a$b", "{x}%s", "a\\b", "-a", "_a", "a" * 200, "'\"", "[1]"]
# Read as markup by what prints, as mathematics by what draws, or not to be written as UTF-8.
TROUBLE = ["[old]", "x[/old]", r"$\frac$", os.fsdecode(b"caf\xe9")]


def added(root: Path, names: list[str]) -> list[Path]:
    """Add items of these names to the training split, and return the photographs."""
    rng, images = np.random.default_rng(0), []
    for name in names:
        images.append(save(photograph(rng, (5, 6)), root / "train" / f"{name}.png"))
        save(values(rng, (5, 6), range(11)), root / "trainannot" / f"{name}.png")
    return images


def assert_good_names(root: Path, names: list[str], out: Path) -> None:
    added(root, names)
    report = checked(camvid(root), out, ("train",))
    assert (report["train"]["items"], report["train"]["problems"]) == (4 + len(names), [])
    assert (out / "train.png").is_file()


def assert_bad_names(root: Path, names: list[str], out: Path, printed: Callable[[], str]) -> None:
    for image in added(root, names):
        image.write_bytes(b"")
    problems = "\n".join(checked(camvid(root), out, ("train",))["train"]["problems"])
    shown = printed()
    for name in names:
        # What is no UTF-8 may be written in another way.
        written = [name, name.encode("utf-8", "backslashreplace").decode()]
        assert any(text in problems for text in written), name
        assert any(text in shown for text in written), name


@pytest.mark.filterwarnings("ignore:Glyph")
def test_good_files_of_any_name(tmp_path: Path) -> None:
    assert_good_names(layouts.camvid(tmp_path), [*LETTERS, *TROUBLE[:2]], tmp_path / "out")


@pytest.mark.parametrize("name", TROUBLE[2:], ids=ascii)
def test_a_good_file_of_an_odd_name(name: str, tmp_path: Path) -> None:
    assert_good_names(layouts.camvid(tmp_path), [name], tmp_path / "out")


def test_bad_files_of_any_name_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [*LETTERS, TROUBLE[2]]
    assert_bad_names(layouts.camvid(tmp_path), names, tmp_path / "out", lambda: capsys.readouterr().out)


@pytest.mark.parametrize("name", [*TROUBLE[:2], TROUBLE[3]], ids=ascii)
def test_a_bad_file_of_an_odd_name_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_bad_names(layouts.camvid(tmp_path), [name], tmp_path / "out", lambda: capsys.readouterr().out)


def assert_class_names(names: list[str], tmp_path: Path, printed: Callable[[], str]) -> None:
    data = camvid(layouts.camvid(tmp_path), class_names=[*names, *(f"class {i}" for i in range(11 - len(names)))])
    report = checked(data, tmp_path / "out", ("train",))
    shown = printed()
    for name in names:
        assert name in report["train"]["pixels"]
        assert name in shown


@pytest.mark.filterwarnings("ignore:Glyph")
def test_classes_of_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["tree, tall", "größe 街", "50 $", "_hidden", "{x}"]
    assert_class_names(names, tmp_path, lambda: capsys.readouterr().out)


@pytest.mark.parametrize("name", ["car [moving]", "car [/b]", "$x_$"])
def test_a_class_of_an_odd_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_class_names([name], tmp_path, lambda: capsys.readouterr().out)


# Contact sheets


def test_classes_are_laid_over_what_takes_part_alone(tmp_path: Path) -> None:
    data = camvid(tmp_path, palette=[[10 * i, 255 - 10 * i, 0] for i in range(11)])
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    label = np.random.default_rng(1).integers(0, 11, (4, 6)).astype(np.uint8)
    label[1] = 255
    found = overlay(image, label, classes_of(data), 0.5)
    expected = (image.astype(float) + np.array(data.palette)[np.where(label == 255, 0, label)]) / 2
    assert np.abs(found[label != 255] - expected[label != 255]).max() <= 0.5
    assert np.array_equal(found[1], image[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (SIDE + 9, 30)])
def test_pictures_of_any_shape(size: tuple[int, int], tmp_path: Path) -> None:
    root, rng = tmp_path / "odd", np.random.default_rng(0)
    for i in range(3):
        save(photograph(rng, size), root / "train" / f"{i}.png")
        save(values(rng, size, range(11)), root / "trainannot" / f"{i}.png")
    assert contact_sheet(camvid(root), "train", 4, 0) is not None


def test_the_same_seed_draws_the_same_samples(tmp_path: Path) -> None:
    root, rng = tmp_path / "many", np.random.default_rng(0)
    for i in range(30):
        save(photograph(rng, (5, 6)), root / "train" / f"{i:02d}.png")
        save(values(rng, (5, 6), range(11)), root / "trainannot" / f"{i:02d}.png")

    def titles(seed: int) -> list[str]:
        return [axis.get_title() for axis in contact_sheet(camvid(root), "train", 5, seed).axes if axis.get_title()]

    assert titles(3) == titles(3) != titles(4)
    assert len(set(titles(3))) == 5


# The command line


def damaged_copy(tmp_path: Path) -> tuple[Path, list[str]]:
    root = layouts.camvid(tmp_path)
    bad: list[tuple[str, Callable[[Path], object]]] = [
        ("train/0001TP_006720.png", lambda p: p.write_bytes(b"")),
        ("trainannot/0006R0_f00930.png", lambda p: Image.open(p).convert("RGB").save(p)),
        ("valannot/0016E5_07963.png", lambda p: save(np.full((13, 17), 99, np.uint8), p)),
        ("test/0001TP_008550.png", lambda p: p.write_bytes(p.read_bytes()[:50])),
    ]
    for place, spoil in bad:
        spoil(root / place)
    return root, [place.rsplit("/", 1)[1] for place, _ in bad]


def test_the_command_names_every_bad_file_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root, bad = damaged_copy(tmp_path)
    options = ["data=camvid", f"data.root={root}", "fetch=false", "workers=1", "hydra.run.dir=out", "data.counts=null"]
    assert call(prepare, *options, folder=tmp_path, patch=monkeypatch) == 1
    printed, errors = capfd.readouterr()
    assert "4 problems" in errors
    assert errors.count("error: ") == 1
    assert "Traceback" not in errors
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    problems = [problem for split in SPLITS for problem in report[split]["problems"]]
    assert len(problems) == 4
    for name, problem in zip(bad, problems, strict=True):
        assert name in problem
        assert problem in printed
    assert "data.masks=rgb" in problems[1]
    assert all((tmp_path / "out" / f"{split}.png").stat().st_size > 1000 for split in SPLITS)
    assert (tmp_path / "out" / "config.yaml").is_file()


def test_the_command_ends_with_0_where_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = layouts.camvid(tmp_path)
    options = [
        "data=camvid",
        f"data.root={root}",
        "fetch=false",
        "workers=1",
        "hydra.run.dir=out",
        "splits=[val,train]",
    ]
    counts = "data.counts={train: 4, val: 3}"
    assert call(prepare, *options, counts, "samples=2", folder=tmp_path, patch=monkeypatch) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(split, found["items"]) for split, found in report.items()] == [("val", 3), ("train", 4)]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("splits=[train,valid]", "no split 'valid'"),
        ("data.root=nowhere", "nowhere"),
        ("download=voc", "download=voc: where a data set comes from goes with data=camvid, and is not chosen"),
    ],
)
def test_the_command_says_what_is_wrong_with_an_option(
    option: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["data=camvid", f"data.root={layouts.camvid(tmp_path)}", "fetch=false", "workers=1", "hydra.run.dir=out"]
    assert call(prepare, *options, option, folder=tmp_path, patch=monkeypatch) == 1
    printed, errors = capfd.readouterr()
    assert message in printed + errors


def test_a_single_split_is_understood_or_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["data=camvid", f"data.root={layouts.camvid(tmp_path)}", "fetch=false", "workers=1", "data.counts=null"]
    call(prepare, *options, "splits=train", "hydra.run.dir=out", folder=tmp_path, patch=monkeypatch)
    assert "no split 't'" not in capfd.readouterr().err


def test_photographs_without_labels_are_checked_beside_the_others(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(3):
        save(photograph(rng, (20, 30)), root / "more" / f"{i}.jpg")
    (root / "more" / "3.jpg").write_text("a text")
    out = tmp_path / "out"
    report = checked(camvid(root, unlabelled="more"), out, ("train", "val"))
    assert list(report) == ["train", "val", "unlabelled"]
    assert report["unlabelled"]["items"] == 4
    assert report["unlabelled"]["sizes"] == {"30 x 20": 3}
    (problem,) = report["unlabelled"]["problems"]
    assert "3.jpg: no picture" in problem
    with Image.open(out / "unlabelled.png") as sheet:
        assert sheet.width > 100
