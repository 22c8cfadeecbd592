"""Pictures as users have them: upright, RGB, 8 bits; what can't be read is named."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idd_seg.errors import DataError
from idd_seg.evaluation.picture_input import FORMATS, read_picture, size_of

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)


def save(path: Path, image: Any, **options: Any) -> Path:
    Image.fromarray(image).save(path, **options) if isinstance(image, np.ndarray) else image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_every_lossless_format_is_read_as_it_is(suffix: str, tmp_path: Path) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    assert (read_picture(save(tmp_path / f"a.{suffix}", RGB, **options)) == RGB).all()
    assert size_of(tmp_path / f"a.{suffix}") == (13, 17)


def test_a_large_picture_is_converted_in_strips(tmp_path: Path) -> None:
    tall = RNG.integers(0, 256, (1300, 3, 3), dtype=np.uint8)
    assert (read_picture(save(tmp_path / "a.png", tall)) == tall).all()


def test_transparency_is_left_out(tmp_path: Path) -> None:
    alpha = np.dstack([RGB, np.full((13, 17), 3, np.uint8)])
    assert (read_picture(save(tmp_path / "a.png", alpha)) == RGB).all()
    grey = np.dstack([RGB[..., 0], RGB[..., 1]])
    assert (read_picture(save(tmp_path / "b.png", Image.fromarray(grey, "LA"))) == RGB[..., :1]).all()


def test_grey_palette_and_bits_become_rgb(tmp_path: Path) -> None:
    assert (read_picture(save(tmp_path / "g.png", RGB[..., 0])) == RGB[..., :1]).all()
    indexed = Image.fromarray(RGB).quantize(16)
    assert (read_picture(save(tmp_path / "p.png", indexed)) == np.array(indexed.convert("RGB"))).all()
    bits = Image.fromarray(RGB[..., 0] > 99)
    assert set(np.unique(read_picture(save(tmp_path / "b.png", bits)))) == {0, 255}


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    wide = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
    for suffix in ("png", "tif"):
        found = read_picture(save(tmp_path / f"a.{suffix}", wide))
        assert (found == (wide >> 8).astype(np.uint8)[..., None]).all()


def test_sixteen_bits_of_colour_keep_the_upper_eight(tmp_path: Path) -> None:
    wide = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    (tmp_path / "a.png").write_bytes(png(7, 5, lines, bits=16))
    assert (read_picture(tmp_path / "a.png") == (wide >> 8).astype(np.uint8)).all()


def png(width: int, height: int, lines: bytes, bits: int = 8) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    found = read_picture(save(tmp_path / "a.jpg", red, quality=95))
    assert abs(found.astype(int) - [250, 10, 10]).max() < 6


TURNS = {1: 0, 3: 2, 6: 3, 8: 1}


@pytest.mark.parametrize("tag", TURNS)
def test_the_orientation_of_the_camera_is_followed(tag: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    found = read_picture(save(tmp_path / "a.png", RGB, exif=exif))
    assert (found == np.rot90(RGB, TURNS[tag])).all()


@pytest.mark.parametrize("shape", [(1, 1), (50, 20000), (20000, 50)])
def test_pictures_of_any_shape(shape: tuple[int, int], tmp_path: Path) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    assert read_picture(save(tmp_path / "a.png", image)).shape == image.shape


def broken(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "JPEG" if kind == "jpg" else "PNG")
    data = file.getvalue()
    made = {
        "empty": b"",
        "text": b"not a picture\n" * 50,
        "jpg": data[: len(data) // 2],
        "png": data[: len(data) // 2],
        "damaged": data[:1000] + bytes(200) + data[1200:],
        "bomb": png(30000, 30000, b""),
        "large": png(12000, 12000, b""),
        "huge": png(2**31 - 1, 2**31 - 1, b""),
        "no size": png(0, 0, b""),
        "script": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    return made[kind]


MESSAGES = {
    "empty": "is empty",
    "text": "no picture; PNG",
    "script": "no picture; PNG",
    "large": "12000 x 12000 pixels are more than max_pixels",
}


@pytest.mark.parametrize(
    "kind", ["empty", "text", "jpg", "png", "damaged", "bomb", "large", "huge", "no size", "script"]
)
def test_what_can_not_be_read_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    path.write_bytes(broken(kind))
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        read_picture(path)
    assert MESSAGES.get(kind, "") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_floats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_picture(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"a folder, not a picture|can't be read"):
        read_picture(tmp_path)
    save(tmp_path / "f.tif", RGB[..., 0].astype(np.float32))
    with pytest.raises(DataError, match="floating-point"):
        read_picture(tmp_path / "f.tif")
    save(tmp_path / "i.tif", RGB[..., 0].astype(np.int32) * 100000)
    with pytest.raises(DataError, match="of 32 bits"):
        read_picture(tmp_path / "i.tif")


def test_no_format_calls_another_program() -> None:
    assert not {"EPS", "PS", "WMF"} & set(FORMATS)
