"""`python -m idd_seg.label`: masks that a training reads, made once, and by the network alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import idd_seg
from idd_seg.config.instantiate import make_data
from idd_seg.data.folder import Folder
from idd_seg.data.pipeline.class_list import read_class_list
from idd_seg.data.pipeline.decode import read_image
from idd_seg.data.pipeline.decode_label import read_label
from idd_seg.errors import ConfigError
from idd_seg.evaluation.inference import Inference
from idd_seg.library import NO_CLASS
from idd_seg.models.foreign.class_map import Mapped
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.ops.upsample import confident_chunks, predict, whole_view
from idd_seg.prediction.inputs import PictureJob
from idd_seg.prediction.label_all import TeacherModel
from idd_seg.prediction.label_folder import root_of
from idd_seg.prediction.mask_values import MaskValues
from idd_seg.types import Outputs
from tests.data.layouts import compose, photograph, save
from tests.helpers import clean_error, run_here
from tests.shipping import save_run

NAMES, COLOURS = ["road", "house", "sky"], [[1, 2, 3], [70, 70, 70], [0, 0, 255]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(6):
        save(photograph(rng, (30 + 4 * (i % 2), 41)), tmp_path / "photos" / ("sub" if i % 2 else ".") / f"{i} ü,b.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(photograph(rng, (20, 33)), tmp_path / "photos" / "turned.jpg", exif=turned)
    return tmp_path


def label(checkpoint: Path, folder: Path, *options: str) -> Any:
    base = [f"checkpoint={checkpoint}", "input=photos", "output=labels", "hydra.run.dir=out", "device=cpu"]
    return run_here("label", *base, *options, cwd=folder)


# Confidence


@pytest.mark.parametrize("views", [1, 3])
def test_probabilities_are_those_of_full_size_logits(views: int) -> None:
    coarse = [torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(i)) for i in range(views)]
    seen = [whole_view(logits, (13, 17)) for logits in coarse]
    full = [nn.functional.interpolate(logits, (13, 17), mode="bilinear").softmax(1) for logits in coarse]
    mean = torch.stack(full).mean(0)
    parts = list(confident_chunks(seen, (13, 17)))
    ids, found = (torch.cat([part[i] for part in parts], 1) for i in (1, 2))
    torch.testing.assert_close(found, mean.amax(1))
    assert torch.equal(ids, mean.argmax(1))
    assert torch.equal(ids, predict(seen, (13, 17)))


@pytest.mark.parametrize("inference", [None, Inference("slide", (16, 20)), Inference(scales=[1, 1.5], flip=True)])
def test_confident_ids_are_those_of_predict(inference: Inference | None, checkpoint: Path, place: Path) -> None:
    model = idd_seg.load(checkpoint, "cpu")
    picture = read_image(place / "photos" / "0 ü,b.png")
    everything = model.show_confident([picture], 0.0, inference)[0]
    assert np.array_equal(everything.ids, model.show([picture], inference)[0])
    assert everything.share == 1
    assert 1 / 11 < everything.certainty < 1
    some = model.show_confident([picture], everything.certainty, inference)[0]
    assert 0 < some.share < 1
    assert some.certainty == everything.certainty
    kept = some.ids != NO_CLASS
    assert kept.mean() == pytest.approx(some.share)
    assert np.array_equal(some.ids[kept], everything.ids[kept])


# Values of masks


@pytest.mark.parametrize(
    ("data", "values", "ignored"),
    [
        ({}, [0, 1, 2], 255),
        ({"label_values": {7: 0, 9: 0, 8: 1, 255: 2}}, [7, 8, 255], 254),
        ({"label_values": {7: 0, 8: 1, 255: 2}, "ignored": [3]}, [7, 8, 255], 3),
        ({"reduce_zero_label": True, "num_classes": 3}, [1, 2, 3], 255),
        ({"masks": "rgb", "ignored_colours": [[9, 9, 9]]}, [0, 1, 2], 255),
        ({"masks": "palette"}, [0, 1, 2], 255),
    ],
)
def test_masks_are_read_as_the_data_set_reads_its_own(
    data: dict[str, Any], values: list[int], ignored: int, tmp_path: Path
) -> None:
    made = MaskValues.of(data, NAMES, COLOURS)
    assert (made.values, made.ignored) == (values, ignored)
    ids = np.array([[0, 1, 2, NO_CLASS]], np.uint8)
    made.picture(ids).save(tmp_path / "mask.png")
    (tmp_path / "classes.yaml").write_text(made.class_list())
    known = read_class_list(tmp_path / "classes.yaml")
    common = {
        "name": "x",
        "num_classes": 3,
        "class_names": known.names,
        "palette": known.palette,
        "mean": [0] * 3,
        "std": [1] * 3,
    }
    masks = data.get("masks", "indices")
    options = {"masks": masks, "ignored": known.ignored, "ignored_colours": known.ignored_colours}
    values_of = {"label_values": known.label_values} if masks == "indices" else {}
    folder = Folder(str(tmp_path), {}, {}, **common, **options, **values_of)
    assert folder.labels(read_label(tmp_path / "mask.png", masks), "x").tolist() == ids.tolist()
    assert np.array_equal(made.read(tmp_path / "mask.png"), ids)
    if masks == "rgb":
        assert read_label(tmp_path / "mask.png", "rgb")[0, 3].tolist() == [9, 9, 9]


def test_a_class_without_a_value_is_told() -> None:
    with pytest.raises(ConfigError, match="the class 'sky' has no value in masks"):
        MaskValues.of({"label_values": {0: 0, 1: 1}}, NAMES, COLOURS)


# The command


def test_a_training_takes_the_list_as_it_is(checkpoint: Path, place: Path) -> None:
    done = label(checkpoint, place, "confidence=0.15", "samples=4")
    assert done.returncode == 0, done.stderr
    assert "7 photographs in" in done.stdout
    lines = (place / "labels" / "list.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7
    options = done.stdout.split("to train on them: ")[1].split("\n")[0].split()
    assert options[0] == "data=folder"
    quoted = [f'{key}="{value}"' for key, value in (option.split("=", 1) for option in options[1:])]
    data = make_data(compose("data=folder", *quoted, "data.num_workers=0"))
    assert data.class_names == idd_seg.load(checkpoint, "cpu").class_names
    source = data.dataset("train").source
    model, shares = idd_seg.load(checkpoint, "cpu"), []
    for index in range(len(source)):
        item = source[index]
        assert item.label is not None
        ids = data.labels(item.label, item.name)
        wanted = model.show_confident([read_image(Path(item.name), upright=True)], 0.15)[0]
        if "turned" in item.name:  # the mask lies as the file stores its pixels
            assert item.image.shape[:2] == (20, 33)
            ids = np.rot90(ids, -1)
        assert np.array_equal(ids, wanted.ids)
        shares.append(wanted.share)
    assert f"confident: {100 * np.mean(shares):.1f} %" in done.stdout
    with Image.open(place / "labels" / "least_certain.png") as sheet:
        assert sheet.width > 200


def test_a_stopped_call_goes_on(checkpoint: Path, place: Path) -> None:
    assert label(checkpoint, place).returncode == 0
    labels = place / "labels"
    whole = {path.name: path.read_bytes() for path in (labels / "masks").rglob("*.png")}
    listed = (labels / "list.txt").read_text()
    # As after kill -9: a mask without its line, a line that was cut off, and no list.
    rows = (labels / "certainty.tsv").read_text(encoding="utf-8")
    (labels / "certainty.tsv").write_text(rows[: rows.rfind("\n", 0, -1) - 9], encoding="utf-8")
    (labels / "list.txt").unlink()
    times = {path: path.stat().st_mtime_ns for path in (labels / "masks").rglob("*.png")}
    again = label(checkpoint, place)
    assert again.returncode == 0, again.stderr
    assert "5 of 7 photographs have their masks already" in again.stdout
    assert "2 photographs in" in again.stdout
    assert (labels / "list.txt").read_text() == listed
    assert {path.name: path.read_bytes() for path in (labels / "masks").rglob("*.png")} == whole
    assert sum(path.stat().st_mtime_ns != before for path, before in times.items()) == 2
    # A photograph that was changed is labelled again.
    save(photograph(np.random.default_rng(9), (30, 41)), place / "photos" / "0 ü,b.png")
    assert "6 of 7 photographs have their masks already" in label(checkpoint, place).stdout


def test_masks_of_other_settings_are_not_mixed(checkpoint: Path, place: Path) -> None:
    assert label(checkpoint, place).returncode == 0
    other = label(checkpoint, place, "confidence=0.5")
    assert "holds masks made with confidence=0.9, not 0.5; choose another folder" in clean_error(other)
    assert label(checkpoint, place, "confidence=0.5", "overwrite=true").returncode == 0
    assert json.loads((place / "labels" / "label.json").read_text())["confidence"] == 0.5


def test_a_photograph_that_cant_be_read_is_left_out_and_said(checkpoint: Path, place: Path) -> None:
    (place / "photos" / "bad.jpg").write_text("a text")
    done = label(checkpoint, place)
    assert "1 of 8 photographs failed, the others are done" in clean_error(done)
    assert len((place / "labels" / "list.txt").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["confidence=1.5"], "confidence must be a number from 0 to 1, got '1.5'"),
        (["overwrite=maybe"], "overwrite must be true or false, got 'maybe'"),
        (["samples=-1"], "samples must be a whole number >= 0, got '-1'"),
        (["root=photos"], "data=folder takes photographs and masks below one folder"),
        (["input=nowhere"], "there is no file or folder 'nowhere'"),
        (["input=clip.mp4"], "'clip.mp4' is a video, and photographs are labelled"),
    ],
)
def test_a_mistake_is_told(options: list[str], message: str, checkpoint: Path, place: Path) -> None:
    (place / "clip.mp4").touch()
    assert message in clean_error(label(checkpoint, place, *options))


def test_the_list_is_relative_to_what_holds_both(tmp_path: Path) -> None:
    jobs = [PictureJob(tmp_path / "a" / "photos" / "1.jpg", Path("1"))]
    assert root_of(jobs, tmp_path / "a" / "labels", None) == tmp_path / "a"
    assert root_of(jobs, tmp_path / "a" / "labels", str(tmp_path)) == tmp_path


def test_a_teacher_of_another_label_set_labels_in_the_datas_classes(place: Path) -> None:
    class Theirs(nn.Module):
        num_classes, channels = 13, {"head": 1}

        def forward(self, image: Tensor) -> Outputs:
            rising = image.mean(1, keepdim=True) * torch.arange(13.0)[None, :, None, None]
            return Outputs(rising[..., ::4, ::4], {})

    names = [f"their {i}" for i in range(13)]
    data = make_data(compose("data=shapes"))
    entries = [[0, 1], *range(2, 11), [11, 12]]
    teacher = FrozenTeacher(Mapped(Theirs(), entries, data.class_names, names), {"sha256": "0"})
    model = TeacherModel(teacher, data, torch.device("cpu"), 10**6)
    found = model.show_confident([read_image(place / "photos" / "0 ü,b.png")], 0.0)[0]
    assert set(np.unique(found.ids)) <= {0, 10}
    assert model.class_names == data.class_names


@pytest.mark.slow
def test_a_foreign_teacher_labels(place: Path) -> None:
    from tests.models.foreign.networks import mmseg
    from tests.models.foreign.networks import save as save_weights

    save_weights(mmseg("psp", 13), place / "theirs.pth")
    small = ("teacher.model.depth=18", "teacher.model.base=8", "teacher.model.width=16")
    mapped = "teacher.class_map=[[0,1],2,3,4,5,6,7,8,9,10,[11,12]]"
    options = ("data=shapes", "teacher=mmseg_pspnet_r101", *small, mapped, "confidence=0")
    done = label(place / "theirs.pth", place, *options)
    assert done.returncode == 0, done.stderr
    assert len(list((place / "labels" / "masks").rglob("*.png"))) == 7
