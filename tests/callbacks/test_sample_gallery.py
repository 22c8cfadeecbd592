"""What every finished run shows of itself."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import idd_seg.train
from idd_seg.callbacks.sample_gallery_data import IGNORED, WIDTH, Gallery, GallerySample, spread, write
from idd_seg.data.shapes import Shapes
from idd_seg.metrics.confusion import scores
from tests.commands import call
from tests.helpers import TINY


def train(folder: Path, patch: pytest.MonkeyPatch, *options: str) -> Path:
    common = (f"cache_dir={folder / 'cache'}", "hydra.run.dir=run")
    assert call(idd_seg.train, *TINY, *common, *options, folder=folder, patch=patch) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with `idd` and `position` whose last validation stands behind the fit."""
    with pytest.MonkeyPatch.context() as patch:
        ours = ("loss.idd_weight=1", "loss.position_weight=1")
        return train(tmp_path_factory.mktemp("exhibits"), patch, "trainer.val_check_interval=2", *ours)


def content_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "exhibits" / "exhibits.json").read_text(encoding="utf-8"))
    return found


def test_the_confusion_matrix_is_that_of_the_last_step_on_the_whole_split(distilled: Path) -> None:
    confusion = torch.tensor(content_of(distilled)["confusion"])
    last = json.loads((distilled / "metrics.json").read_text())["last"]
    assert last["step"] == 3  # not a multiple of the interval
    truth = np.stack([np.asarray(Image.open(path)) for path in distilled.glob("exhibits/*_truth.png")])
    assert len(truth) == 4  # the whole split
    assert confusion.sum(1).tolist() == np.bincount(truth[truth != IGNORED], minlength=11).tolist()
    assert scores(confusion).miou == pytest.approx(last["miou"])


def test_samples_are_named_and_their_pictures_are_class_ids_in_the_class_colours(distilled: Path) -> None:
    content = content_of(distilled)
    assert content["format"] == 1
    assert content["split"] == "val"
    assert [sample["name"] for sample in content["samples"]] == [f"shapes:0/val/{i}" for i in range(4)]
    for sample in content["samples"]:
        assert Image.open(distilled / "exhibits" / sample["image"]).size == (32, 32)
        for kind in ("truth", "student", "teacher"):
            picture = Image.open(distilled / "exhibits" / sample[kind])
            ids, colours = np.asarray(picture), np.asarray(picture.convert("RGB"))
            palette = np.full((256, 3), 255)
            palette[:11] = content["palette"]
            assert (colours == palette[ids]).all()
    assert (distilled / "pictures" / "predictions.png").stat().st_size > 5000


def test_scored_images_have_a_score_each_and_small_masks(distilled: Path) -> None:
    with zipfile.ZipFile(distilled / "exhibits" / "scored.zip") as archive:
        content = json.loads(archive.read("scored.json"))
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert (content["format"], content["split"], content["length"]) == (1, "val", 4)
        shown = content_of(distilled)["samples"]  # both are the whole split here
        assert [image["name"] for image in content["images"]] == [sample["name"] for sample in shown]
        for image, sample in zip(content["images"], shown, strict=True):
            for kind in ("truth", "student", "teacher"):
                small = np.asarray(Image.open(io.BytesIO(archive.read(image[kind]))))
                assert (small == np.asarray(Image.open(distilled / "exhibits" / sample[kind]))).all()
            assert Image.open(io.BytesIO(archive.read(image["image"]))).size == (32, 32)
    truth, found = (np.asarray(Image.open(distilled / "exhibits" / shown[0][kind])) for kind in ("truth", "student"))
    known = truth != IGNORED
    iou = [
        ((truth == i) & (found == i) & known).sum() / union
        for i in range(11)
        if (union := (((truth == i) | (found == i)) & known).sum())
    ]
    assert content["images"][0]["miou"]["student"] == pytest.approx(np.mean(iou), abs=1e-6)
    assert set(content["images"][0]["miou"]) == {"student", "teacher"}


def test_distances_are_known_for_student_and_teacher_and_null_for_absent_classes(distilled: Path) -> None:
    content = content_of(distilled)
    present = np.array(content["confusion"]).sum(1) > 0
    for name in ("student", "teacher"):
        matrix = np.array(content["class_distances"][name], dtype=float)  # null becomes NaN
        assert matrix.shape == (11, 11)
        known = ~np.isnan(matrix)
        assert (known == np.outer(present, present)).all()
        off = known & ~np.eye(11, dtype=bool)
        assert matrix[off].mean() == pytest.approx(1, abs=1e-3)


def test_position_maps_of_reading_and_truth(distilled: Path) -> None:
    position = content_of(distilled)["position"]
    assert position["targets"] == ["horizontal", "vertical"]
    student, truth = np.array(position["student"]), np.array(position["truth"])
    assert student.shape == truth.shape
    assert student.shape[0] == 2
    assert (np.diff(truth[0], axis=1) > 0).all()
    assert (np.diff(truth[1], axis=0) > 0).all()


def test_without_a_teacher_its_places_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("callbacks.sample_gallery.count=2", "callbacks.sample_gallery.scored=0")
    run = train(tmp_path, monkeypatch, "loss=ce", *options)
    assert not (run / "exhibits" / "scored.zip").exists()
    content = content_of(run)
    assert [sample["teacher"] for sample in content["samples"]] == [None, None]
    assert [sample["name"] for sample in content["samples"]] == ["shapes:0/val/0", "shapes:0/val/3"]
    assert content["class_distances"]["teacher"] is None
    assert content["position"] is None


def test_a_folder_that_cant_be_written_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("idd_seg.callbacks.sample_gallery.write", full)
    with pytest.warns(UserWarning, match="no exhibits.*No space left"):
        run = train(tmp_path, monkeypatch, "loss=ce")
    assert (run / "metrics.json").is_file()


@pytest.mark.slow
def test_two_processes_show_the_same_as_one(tmp_path: Path, distilled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(train(tmp_path, monkeypatch, "loss=ce", "trainer=ddp", "trainer.devices=2"))
    one = content_of(distilled)
    assert np.sum(content["confusion"]) == np.sum(one["confusion"])
    assert [s["name"] for s in content["samples"]] == [s["name"] for s in one["samples"]]


def test_samples_are_spread_over_the_split() -> None:
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(2, 4) == [0, 1]
    assert spread(5, 1) == [0]


def test_large_pictures_are_made_smaller_and_what_is_ignored_is_white(tmp_path: Path) -> None:
    data = Shapes(
        size=(32, 32),
        scene_seed=0,
        train_length=4,
        val_length=4,
        test_length=4,
        name="shapes",
        num_classes=11,
        class_names=[str(i) for i in range(11)],
        palette=[[i, i, i] for i in range(11)],
        mean=[0.5] * 3,
        std=[0.2] * 3,
        batch_size=4,
    )
    ids = np.full((500, 1280), IGNORED, np.uint8)
    ids[:, :640] = 7
    sample = GallerySample("wide", np.zeros((500, 1280, 3), np.uint8), ids, ids, None)
    write(tmp_path, Gallery([sample], {}, None, None), data)
    truth = Image.open(tmp_path / "0_truth.png")
    assert truth.size == (WIDTH, 250)
    assert truth.convert("RGB").getpixel((0, 0)) == (7, 7, 7)
    assert truth.convert("RGB").getpixel((WIDTH - 1, 0)) == (255, 255, 255)
    content = json.loads((tmp_path / "exhibits.json").read_text())
    assert content["confusion"] is None
    assert content["samples"][0]["teacher"] is None
