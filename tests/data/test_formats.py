"""Every cell of the table in docs/formats.md: generated files of each format, bits and channels, for each command."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from idd_seg.data.pipeline import picture_file
from idd_seg.data.pipeline.decode import read_image
from idd_seg.data.pipeline.decode_label import read_label
from idd_seg.data.pipeline.files import Pair, PairSource
from idd_seg.errors import DataError
from idd_seg.evaluation.picture_input import as_picture

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
COLUMNS = {"photograph", "mask, indices", "mask, palette", "mask, rgb"}
SIZE = (6, 8)
IDS = np.arange(48, dtype=np.uint8).reshape(SIZE) % 3
PHOTO = (np.arange(144, dtype=np.uint8).reshape(*SIZE, 3) * 1) + 100
DEEP = PHOTO.astype(np.uint16) * 256 + 77


def png16(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write a PNG of 16 bits; Pillow writes none in colour."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if array.ndim == 2 else array.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, kind, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        picture_file.PNG
        + b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    )


def with_alpha(picture: np.ndarray[Any, Any], clear: bool) -> np.ndarray[Any, Any]:
    alpha = np.full((*SIZE, 1), np.iinfo(picture.dtype).max, picture.dtype)
    alpha[0, 0] = 0 if clear else alpha[0, 0]
    return np.concatenate([picture, alpha], axis=2)


def write(path: Path, kind: str, bits: str) -> None:
    """Write a picture of a row of the table."""
    image_format = {".jpg": "JPEG", ".tif": "TIFF"}.get(path.suffix, path.suffix[1:].upper())
    if bits == "16":
        array = {"grey": DEEP[..., 0], "RGB": DEEP, "RGBA, opaque": with_alpha(DEEP, False)}[kind]
        if image_format == "PNG":
            png16(path, array)
        elif kind == "grey":
            Image.fromarray(array).save(path)
        else:
            assert cv2.imwrite(str(path), cv2.cvtColor(array, cv2.COLOR_RGB2BGR))
        return
    options = {"lossless": True} if image_format == "WEBP" else {}
    if kind == "palette":
        picture = Image.fromarray(IDS)
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    elif kind == "grey":
        picture = Image.fromarray(IDS)
    elif kind == "black and white":
        picture = Image.fromarray(IDS == 1)
    elif kind == "CMYK":
        picture = Image.fromarray(PHOTO).convert("CMYK")
    elif kind == "float":
        picture = Image.fromarray(IDS.astype(np.float32))
    else:
        array = PHOTO if kind == "RGB" else with_alpha(PHOTO, "transparent" in kind)
        picture = Image.fromarray(array)
        options |= {"exact": True} if image_format == "WEBP" else {}
    picture.save(path, image_format, **options)


def rows() -> list[dict[str, str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(table[0], row, strict=True)) for row in table[2:] if len(row) == len(table[0])]


def outcome(read: Any) -> tuple[str, Any]:
    """Return what a cell of the table says: `yes`, `warned` or `refused`."""
    picture_file._told.clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = read()
        except DataError as error:
            return "refused", str(error)
    return ("warned" if told else "yes"), found


CELLS = [(row, column) for row in rows() for column in sorted(COLUMNS)]


@pytest.mark.parametrize(("row", "column"), CELLS, ids=lambda v: v if isinstance(v, str) else " ".join(v.values())[:40])
def test_a_cell_of_the_table(tmp_path: Path, row: dict[str, str], column: str) -> None:
    path = tmp_path / f"a{row['file']}"
    write(path, row["pixels"], row["bits"])
    if column == "photograph":
        readers = {
            "train, prepare, evaluate": lambda: PairSource([Pair(path, None)])[0].image,
            "predict, load": lambda: as_picture(path),
            "export": lambda: read_image(path),
        }
        found = {name: outcome(read) for name, read in readers.items()}
        assert {result for result, _ in found.values()} == {row[column]}, found
        pictures = [picture for result, picture in found.values() if result != "refused"]
        assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
        if row["pixels"].startswith("RGB") and row["file"] not in (".jpg",):
            assert np.array_equal(pictures[0], PHOTO)
        return
    result, label = outcome(lambda: read_label(path, column.rpartition(" ")[2]))
    assert result == row[column], label
    if result == "refused":
        assert str(path) in label
        assert "damaged" not in label
    elif column == "mask, indices":
        assert np.array_equal(label, IDS == 1 if row["pixels"] == "black and white" else IDS)
    else:
        assert label.shape == (*SIZE, 3)


def test_the_table_has_all_formats() -> None:
    found = {row["file"] for row in rows()}
    assert found == {suffix for suffix in picture_file.IMAGE_SUFFIXES if suffix not in (".jpeg", ".tiff")}
    assert set(rows()[0]) == {"file", "pixels", "bits", *COLUMNS}


def test_16_bits_that_are_almost_black_are_told(tmp_path: Path) -> None:
    png16(tmp_path / "dark.png", DEEP // 16)
    result, picture = outcome(lambda: read_image(tmp_path / "dark.png"))
    assert (result, picture.max() < 16) == ("warned", True)


def test_several_pages_are_told_of_a_photograph_and_refused_of_a_mask(tmp_path: Path) -> None:
    page = Image.fromarray(IDS)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    assert outcome(lambda: read_image(tmp_path / "a.tif"))[0] == "warned"
    assert "several pictures" in outcome(lambda: read_label(tmp_path / "a.tif"))[1]


def test_a_fourth_channel_that_is_no_transparency_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(with_alpha(PHOTO, False)).save(path)
    extra = bytes.fromhex("5201 0300 01000000")  # the tag that says what the channel is
    content = path.read_bytes()
    place = content.index(extra) + len(extra)
    path.write_bytes(content[:place] + b"\0\0" + content[place + 2 :])
    with pytest.raises(DataError, match="4 channels"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x00\x05\x16\x07" + bytes(60), "macOS"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>", "web page"),
        (b"\0\0\0\x18ftypheic" + bytes(60), "HEIC"),
        (b"GIF89a" + bytes(60), "GIF"),
        (b"hello", "something else"),
    ],
)
def test_what_is_no_picture_is_not_called_damaged(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(DataError, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert not re.search("damaged or truncated", str(caught.value))


def test_a_picture_that_is_only_large_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # of 48: Pillow warns
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    Image.fromarray(IDS).save(tmp_path / "m.png")
    assert read_image(tmp_path / "a.png").shape == (*SIZE, 3)
    assert read_label(tmp_path / "m.png").shape == SIZE
    with pytest.raises(DataError, match="8 x 6 pixels are more than max_pixels=40"):
        read_image(tmp_path / "a.png", 40)
