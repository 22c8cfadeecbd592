"""Data sets in files: what is read, and one clear message for each way in which a file can be wrong."""

from __future__ import annotations

import gc
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from idd_seg.data.camvid import CamVid
from idd_seg.data.pipeline import orientation, picture_file
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.decode import read_image
from idd_seg.data.pipeline.decode_label import read_label
from idd_seg.data.pipeline.files import Pair, PairSource
from idd_seg.data.shapes import Shapes
from idd_seg.data.voc import VOC
from idd_seg.errors import DataError, UserError, message_of
from tests.data.sources import NAMES, SIZE, label_map, photograph, settings

IMAGE = f"train/{NAMES[0]}.png"
JPEG = f"val/{NAMES[0]}.jpg"
LABEL = f"trainannot/{NAMES[0]}.png"


def camvid(root: Path, **changes: Any) -> CamVid:
    return CamVid(root=str(root), **settings(11, **{"ignored": [11], **changes}))


def voc(root: Path, **changes: Any) -> VOC:
    return VOC(root=str(root), train_list="train", train_labels="SegmentationClass", **settings(21, **changes))


def read_all(data: SegmentationDataModule) -> None:
    data.setup("fit")
    for split in ("train", "val"):
        dataset = data.dataset(split)
        for index in range(len(dataset)):
            dataset[0, index]


def cut(path: Path, share: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def empty_folder(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


# What is read


def test_camvid_pairs_photographs_and_labels_by_name(camvid_root: Path) -> None:
    data = camvid(camvid_root)
    data.setup("fit")
    for split, suffix in (("train", "png"), ("val", "jpg")):
        source = data.make_source(split)
        assert [Path(source[i].name).name for i in range(len(source))] == [f"{name}.{suffix}" for name in NAMES]
        for i in range(3):
            assert np.array_equal(source[i].label, label_map(i, 12))
            error = np.abs(source[i].image.astype(int) - np.asarray(photograph(i)))
            assert error.mean() < (0.1 if suffix == "png" else 8)
    assert set(data.dataset("train")[0, 0].label.unique().tolist()) <= {*range(11), 255}


def test_voc_reads_palette_labels_as_indices_and_ignores_the_border(voc_root: Path) -> None:
    data = voc(voc_root)
    data.setup("fit")
    assert [len(data.dataset(split)) for split in ("train", "val")] == [2, 1]
    for i in range(2):
        label = data.dataset("train")[0, i].label.numpy()
        assert (label[[0, -1]] == 255).all()
        assert np.array_equal(label[1:-1], label_map(i, 21)[1:-1])


def test_voc_takes_another_list_and_folder_for_training_alone(voc_root: Path) -> None:
    lists = voc_root / "ImageSets" / "Segmentation"
    (lists / "trainaug.txt").write_text("\n".join(NAMES), encoding="utf-8")
    (voc_root / "SegmentationClass").rename(voc_root / "SegmentationClassAug")
    (voc_root / "SegmentationClass").mkdir()
    name = f"{NAMES[2]}.png"
    (voc_root / "SegmentationClassAug" / name).rename(voc_root / "SegmentationClass" / name)
    (lists / "trainaug.txt").write_text("\n".join(NAMES[:2]), encoding="utf-8")
    data = VOC(root=str(voc_root), train_list="trainaug", train_labels="SegmentationClassAug", **settings(21))
    read_all(data)
    assert len(data.dataset("train")) == 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P"])
def test_photographs_of_any_colour_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    photograph(0).convert(mode).save(path)
    found = read_image(path)
    assert (found.shape, found.dtype) == ((*SIZE, 3), np.uint8)


def test_a_photograph_of_16_bits_is_scaled_or_refused_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)).save(path)
    try:
        found = read_image(path)
    except DataError:
        return
    assert np.abs(found[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_labels_of_few_bits_keep_their_values(tmp_path: Path, depth: int) -> None:
    """Pillow spreads them over 0 to 255."""
    values = np.arange(2**depth, dtype=np.uint8)
    bits = ((values[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(1, -1)
    row = b"\0" + np.packbits(bits, axis=1).tobytes()
    head = struct.pack(">IIBBBBB", len(values), 1, depth, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    whole = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    path = tmp_path / "mask.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + whole)
    assert read_label(path).tolist() == [values.tolist()]


def test_a_photograph_that_its_tag_turns_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_file, "_told", set())
    tag = Image.Exif()
    tag[orientation.ORIENTATION] = 6
    for name in ("a.jpg", "b.jpg"):
        photograph(0).save(tmp_path / name, exif=tag)
    with pytest.warns(UserWarning, match=r"a\.jpg: its EXIF tag says") as told:
        assert [read_image(tmp_path / name).shape[:2] for name in ("a.jpg", "b.jpg")] == [SIZE, SIZE]
    assert len(told) == 1
    Image.new("L", SIZE).save(tmp_path / "label.png")  # upright, as it was drawn
    with pytest.raises(DataError, match="was it drawn on a picture that its EXIF tag turns"):
        PairSource([Pair(tmp_path / "a.jpg", tmp_path / "label.png")])[0]


def test_samples_of_files_give_no_warning(camvid_root: Path) -> None:
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_all(camvid(camvid_root))
    finally:
        torch.set_warn_always(False)


def test_a_black_and_white_label_map_has_the_classes_0_and_1(tmp_path: Path) -> None:
    path, mask = tmp_path / "mask.png", np.random.default_rng(0).random(SIZE) < 0.5
    Image.fromarray(mask).save(path)
    assert np.array_equal(read_label(path), mask)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damage_of_any_kind_ends_in_a_data_error(tmp_path: Path, suffix: str) -> None:
    path, rng = tmp_path / f"noise.{suffix}", np.random.default_rng(0)
    photograph(0).save(path)
    good, messages = path.read_bytes(), []
    for _ in range(150):
        damaged = bytearray(good)
        for place in rng.integers(min(200, len(good)), size=rng.integers(1, 5)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(good) // 2, 2 * len(good))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(path).dtype == np.uint8
            except DataError as error:
                messages.append(str(error))
    assert len(messages) > 25
    assert all(str(path) in message for message in messages)


# What is refused: the message names the file and says what is wrong with it


def save_16_bits(path: Path) -> None:
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(path)


def set_value_12(path: Path) -> None:
    label = label_map(0, 11)
    label[3, 4] = 12
    Image.fromarray(label).save(path)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated png": (IMAGE, cut, "damaged or truncated"),
    "truncated jpeg": (JPEG, cut, "damaged or truncated"),
    "truncated label": (LABEL, cut, "damaged or truncated"),
    "end cut off a png": (IMAGE, lambda path: cut(path, 0.95), "damaged or truncated"),
    "empty image": (IMAGE, lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
    "empty label": (LABEL, lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
    "text named png": (IMAGE, lambda path: path.write_text("hello"), "no picture; PNG, JPEG"),
    "text named label": (LABEL, lambda path: path.write_text("hello"), "no picture; PNG, JPEG"),
    "rgb label": (
        LABEL,
        lambda path: photograph(0).save(path),
        "colour picture.*'RGB'.*class ids are expected in 8 bits.*data.masks=rgb",
    ),
    "rgba label": (
        LABEL,
        lambda path: photograph(0).convert("RGBA").save(path),
        "colour picture.*'RGBA'.*data.masks=rgb",
    ),
    "16-bit label": (LABEL, save_16_bits, "16-bit picture.*'I;16'.*class ids are expected in 8 bits"),
    "jpeg label": (LABEL, lambda path: photograph(0).convert("L").save(path, "JPEG"), "JPEG has lost its exact values"),
    "other size": (LABEL, lambda path: Image.new("L", (5, 7)).save(path), "label is 5 x 7 pixels.*is 16 x 12"),
    "no label": (LABEL, Path.unlink, "1 of 3 samples have no label file"),
    "folder for a label": (LABEL, lambda path: (path.unlink(), path.mkdir()), "1 of 3 samples have no label file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_file_is_named_with_its_fault(camvid_root: Path, damage: str) -> None:
    place, spoil, fault = DAMAGES[damage]
    spoil(camvid_root / place)
    with pytest.raises(DataError, match=fault) as caught:
        read_all(camvid(camvid_root))
    assert str(camvid_root / place) in str(caught.value)


def test_a_value_that_is_no_class_is_named_with_its_file(camvid_root: Path) -> None:
    set_value_12(camvid_root / LABEL)
    with pytest.raises(DataError, match=r"value 12.*classes 0 to 10 and ignores 11, 255") as caught:
        read_all(camvid(camvid_root))
    assert NAMES[0] in str(caught.value)


@pytest.mark.parametrize("factor", [1, 3])
def test_a_decompression_bomb_is_refused(camvid_root: Path, monkeypatch: pytest.MonkeyPatch, factor: int) -> None:
    # Pillow raises from twice its limit on.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIZE[0] * SIZE[1] // factor - 1)
    if factor == 1:
        read_all(camvid(camvid_root))  # what is only large is read
        return
    with pytest.raises(DataError, match="the picture is too large") as caught:
        read_all(camvid(camvid_root))
    assert str(camvid_root / IMAGE) in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("folder", ["train", "trainannot", "val", "valannot"])
def test_a_missing_folder_is_named(camvid_root: Path, folder: str) -> None:
    (camvid_root / folder).rename(camvid_root / "elsewhere")
    with pytest.raises(DataError, match=rf"no folder.*{folder}'.*data\.root=PATH"):
        camvid(camvid_root).setup("fit")


def test_a_folder_without_pictures_is_named(camvid_root: Path) -> None:
    empty_folder(camvid_root / "train")
    (camvid_root / "train" / "notes.txt").write_text("none")
    with pytest.raises(DataError, match=r"no \.png, \.jpg, \.jpeg, .*\.tiff files in .*train'"):
        camvid(camvid_root).setup("fit")


@pytest.mark.parametrize("build", [camvid, voc])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_folder_is_named(tmp_path: Path, build: Callable[[Path], CamVid], kind: str) -> None:
    root = tmp_path / "data set"
    if kind == "file":
        root.write_text("")
    with pytest.raises(DataError, match=re.escape(f"there is no folder '{root}'") + r".*data\.root=PATH"):
        build(root).setup("fit")


def test_the_home_folder_is_understood(camvid_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(camvid_root.parent))
    read_all(camvid(Path("~") / camvid_root.name))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "no list file"),
        (b"", "the list file is empty"),
        (b"\n  \n", "the list file is empty"),
        (b"\xff\xfe\x00", "the list file can't be read"),
        (b"../../etc/passwd", r"line 1: '\.\./\.\./etc/passwd' leads out of the data set"),
        (f"{NAMES[0]}\na/../../b".encode(), r"line 2: 'a/\.\./\.\./b' leads out of the data set"),
        (b"/etc/passwd", "line 1: '/etc/passwd' leads out of the data set"),
    ],
)
def test_a_bad_list_is_named_with_its_fault(voc_root: Path, content: bytes | None, fault: str) -> None:
    listed = voc_root / "ImageSets" / "Segmentation" / "train.txt"
    listed.unlink() if content is None else listed.write_bytes(content)
    with pytest.raises(DataError, match=fault) as caught:
        voc(voc_root).setup("fit")
    assert str(listed) in str(caught.value)


def test_the_line_number_counts_empty_lines(voc_root: Path) -> None:
    (voc_root / "ImageSets" / "Segmentation" / "train.txt").write_text(f"\n\n{NAMES[0]}\n../x\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 4"):
        voc(voc_root).setup("fit")


@pytest.mark.parametrize(("folder", "what"), [("JPEGImages", "image"), ("SegmentationClass", "label")])
def test_a_listed_name_without_file_is_named(voc_root: Path, folder: str, what: str) -> None:
    file = next((voc_root / folder).glob(f"{NAMES[1]}.*"))
    file.unlink()
    with pytest.raises(DataError, match=f"1 of 2 samples have no {what} file: {re.escape(str(file))}"):
        voc(voc_root).setup("fit")


def test_a_message_names_at_most_three_of_many_missing_files(camvid_root: Path) -> None:
    for i in range(5):
        photograph(i).save(camvid_root / "train" / f"more {i}.png")
    with pytest.raises(DataError, match="5 of 8 samples have no label file") as caught:
        camvid(camvid_root).setup("fit")
    assert str(caught.value).count("trainannot") == 3


@pytest.mark.parametrize("build", [camvid, voc, "shapes"], ids=["camvid", "voc", "shapes"])
def test_a_split_that_does_not_exist_is_the_users_to_mend(
    camvid_root: Path, voc_root: Path, build: Callable[[Path], SegmentationDataModule] | str
) -> None:
    lengths = {"train_length": 1, "val_length": 1, "test_length": 1}
    if callable(build):
        data = build(camvid_root if build is camvid else voc_root)
    else:
        data = Shapes(size=(32, 32), scene_seed=0, **lengths, **settings(11))
    with pytest.raises(UserError, match="valid"):
        data.dataset("valid")


# The same from a loader's worker


@pytest.fixture
def quick_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the workers at once: after an error PyTorch waits 5 s for each of them."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1, raising=False)
    yield
    gc.collect()


@pytest.mark.usefixtures("quick_end")
@pytest.mark.parametrize("damage", ["truncated png", "jpeg label", "value", "sizes in one batch"])
def test_a_worker_gives_the_same_clean_message(camvid_root: Path, damage: str) -> None:
    if damage in DAMAGES:
        place, spoil, _ = DAMAGES[damage]
        spoil(camvid_root / place)
    elif damage == "value":
        set_value_12(camvid_root / LABEL)
    else:
        Image.new("RGB", (20, 9)).save(camvid_root / IMAGE)
        Image.new("L", (20, 9)).save(camvid_root / LABEL)
    messages = []
    for workers in (0, 2):
        loader = camvid(camvid_root, num_workers=workers).loader("train", batch_size=3)
        with pytest.raises(DataError) as caught:
            list(loader)
        messages.append(message_of(caught.value))
    assert messages[0] == messages[1]
    assert NAMES[0] in messages[0]
    assert "Traceback" not in messages[0]


# The real data set


@pytest.mark.skipif("IDD_SEG_CAMVID" not in os.environ, reason="set IDD_SEG_CAMVID to the folder of the real CamVid")
def test_the_real_camvid_is_read() -> None:
    data = camvid(Path(os.environ["IDD_SEG_CAMVID"]), eval_batch_size=1)
    seen, number = np.zeros(256, np.int64), 0
    for batch in data.val_dataloader():
        assert batch.image.shape == (1, 3, 360, 480)
        seen += np.bincount(batch.label.flatten().numpy(), minlength=256)
        number += 1
    assert number == 101
    assert set(np.flatnonzero(seen)) == {*range(11), 255}
