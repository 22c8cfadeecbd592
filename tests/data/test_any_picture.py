"""Pictures of any channels and bits: read as another library wrote them, refused by name, shown, kept and augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from idd_seg.data.augment import Augmentation, Window, cut, place, whole
from idd_seg.data.pipeline import exact
from idd_seg.data.pipeline.cache import CachedSource
from idd_seg.data.pipeline.dataset import SegmentationDataset, collate
from idd_seg.data.pipeline.decode import decode_image, read_image, size_of
from idd_seg.data.pipeline.files import Pair, PairSource
from idd_seg.data.pipeline.jitter import recoloured
from idd_seg.data.pipeline.labels import LabelMap, with_table
from idd_seg.data.pipeline.orientation import turned
from idd_seg.data.pipeline.pixels import RGB, Pixels, viewable
from idd_seg.data.shapes import Shapes
from idd_seg.data.unlabelled.names import Names
from idd_seg.data.unlabelled.photographs import Photographs
from idd_seg.dataset_check.channel_sums import ChannelSums
from idd_seg.errors import ConfigError, DataError
from idd_seg.evaluation.picture_input import as_picture

DEEP = Pixels(4, 16)


def values(pixels: Pixels, height: int = 12, width: int = 17) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng([pixels.channels, pixels.bits])
    return rng.integers(0, pixels.white + 1, (height, width, pixels.channels)).astype(pixels.dtype)


def write(path: Path, picture: np.ndarray[Any, Any], **options: Any) -> Path:
    one = picture.shape[2] == 1
    options.setdefault("photometric", "rgb" if picture.shape[2] >= 3 else "minisblack")
    if options.get("planarconfig") == "separate" and not one:
        picture = np.ascontiguousarray(picture.transpose(2, 0, 1))
    elif not one:
        options.setdefault("planarconfig", "contig")
    tifffile.imwrite(path, picture[..., 0] if one else picture, **options)
    return path


LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "planes": {"planarconfig": "separate", "photometric": "minisblack"},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib", "rowsperstrip": 5},
    "tiles": {"tile": (16, 16)},
    "big endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "pixels", [Pixels(1, 8), Pixels(1, 16), Pixels(3, 16), Pixels(4, 8), DEEP, Pixels(7, 16)], ids=str
)
def test_a_tiff_is_read_as_it_was_written(pixels: Pixels, layout: str, tmp_path: Path) -> None:
    options = {key: value for key, value in LAYOUTS[layout].items() if key != "planarconfig" or pixels.channels > 1}
    path = write(tmp_path / "a.tif", values(pixels), **options)
    found = read_image(path, pixels=pixels)
    assert found.dtype == pixels.dtype
    assert np.array_equal(found, values(pixels))
    assert np.array_equal(decode_image(path.read_bytes(), "a.tif", pixels=pixels), found)
    assert size_of(path, pixels=pixels) == (12, 17)


@pytest.mark.parametrize("kind", ["unspecified", "unassalpha", "assocalpha"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_fourth_channel_is_never_taken_for_transparency(kind: str, bits: int, tmp_path: Path) -> None:
    pixels = Pixels(4, bits)
    path = write(tmp_path / "a.tif", values(pixels), extrasamples=[kind])
    assert np.array_equal(read_image(path, pixels=pixels), values(pixels))


@pytest.mark.filterwarnings("ignore:.*several pictures")
def test_pages_of_one_channel_each_are_the_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values(DEEP).transpose(2, 0, 1), photometric="minisblack")
    assert np.array_equal(read_image(tmp_path / "a.tif", pixels=DEEP), values(DEEP))
    with pytest.raises(DataError, match="has 1 channel of 16 bits, and 3 channels of 16 bits are expected"):
        read_image(tmp_path / "a.tif", pixels=Pixels(3, 16))


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_tag_turns_a_tiff(tag: int, tmp_path: Path) -> None:
    """Pillow's own transpositions are the reference."""
    path = write(tmp_path / "a.tif", values(DEEP), extratags=[(274, "H", 1, tag, True)])
    exif = Image.Exif()
    exif[274] = tag
    grey = values(Pixels(1, 8))[..., 0]
    Image.fromarray(grey).save(tmp_path / "b.png", exif=exif)
    with Image.open(tmp_path / "b.png") as stored:
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(turned(grey, tag), expected)
    found = read_image(path, pixels=DEEP)
    assert np.array_equal(found, turned(values(DEEP), tag))
    assert size_of(path, pixels=DEEP) == found.shape[:2]
    assert np.array_equal(read_image(tmp_path / "b.png", pixels=Pixels(1, 8), upright=True)[..., 0], expected)


@pytest.mark.parametrize(
    "pixels", [Pixels(1, 8), Pixels(2, 8), Pixels(4, 8), Pixels(1, 16), Pixels(3, 16), DEEP], ids=str
)
def test_a_png_is_read_as_it_was_written(pixels: Pixels, tmp_path: Path) -> None:
    picture, path = values(pixels), tmp_path / "a.png"
    if pixels.bits == 8:
        Image.fromarray(picture[..., 0] if pixels.channels == 1 else picture).save(path)
    else:
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.channels]  # as OpenCV has them
        assert cv2.imwrite(str(path), np.ascontiguousarray(picture[..., order]))
    assert np.array_equal(read_image(path, pixels=pixels), picture)
    assert size_of(path, pixels=pixels) == (12, 17)


def test_a_grey_jpeg_has_one_channel(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / "a.jpg")
    assert (read_image(tmp_path / "a.jpg", pixels=Pixels(1, 8)) == 77).all()


def _float(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((8, 8, 4), np.float32), photometric="rgb")


def _truncated(path: Path) -> None:
    write(path, values(DEEP))
    path.write_bytes(path.read_bytes()[:-100])


def _damaged(path: Path) -> None:
    content = bytearray(write(path, values(DEEP), compression="zlib").read_bytes())
    content[-60:-20] = bytes(40)
    path.write_bytes(content)


REFUSED = {
    "other channels": (
        lambda p: write(p, values(Pixels(3, 16))),
        "the picture has 3 channels of 16 bits, and 4 channels",
    ),
    "other bits": (lambda p: write(p, values(Pixels(4, 8))), "4 channels of 8 bits, and 4 channels of 16 bits are exp"),
    "a photograph": (lambda p: Image.new("RGB", (8, 8)).save(p, "PNG"), "data.channels=3 data.bits=8"),
    "floats": (_float, "unsigned whole numbers of 8 or 16 bits are read"),
    "white is zero": (lambda p: write(p, values(Pixels(1, 16)), photometric="miniswhite"), "grey whose zero is white"),
    "CMYK": (lambda p: write(p, values(DEEP), photometric="separated"), "CMYK"),
    "a palette": (lambda p: Image.new("P", (8, 8)).save(p, "PNG"), "'P' of 1 bits"),
    "truncated": (_truncated, "truncated"),
    "damaged": (_damaged, "damaged or truncated"),
    "empty": (lambda p: p.write_bytes(b""), r"empty \(0 bytes\)"),
    "a text": (lambda p: p.write_text("<html>"), "a text, such as a web page"),
    "a head alone": (lambda p: p.write_bytes(b"II*\0\x08\0\0\0"), "damaged or truncated|holds no picture"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_kind_of_file_is_refused_by_its_name(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    make, message = REFUSED[what]
    make(path)
    with pytest.raises(DataError, match=message) as told:
        read_image(path, pixels=DEEP)
    assert str(path) in str(told.value)


def test_pictures_of_absurd_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", values(DEEP))
    for read in (read_image, size_of):
        with pytest.raises(DataError, match="17 x 12 pixels are more than max_pixels=200"):
            read(path, 200, pixels=DEEP)
    monkeypatch.setattr(exact, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match=r"4 channels of 16 bits take 0.0 GB; at most"):
        size_of(path, pixels=DEEP)


def test_a_photograph_says_how_all_channels_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", values(Pixels(4, 8)), extrasamples=["unspecified"])
    with pytest.raises(DataError, match=r"store three of them, or set data.channels=4"):
        read_image(path)
    with pytest.raises(DataError, match=r"data.channels=N and data.bits=8|16"):
        read_image(write(tmp_path / "b.tif", values(Pixels(7, 16))))


def test_a_cache_keeps_channels_and_bits_and_knows_them_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", values(DEEP))
    Image.fromarray(np.zeros((12, 17), np.uint8)).save(tmp_path / "m.png")
    pair = Pair(path, tmp_path / "m.png")
    cached = CachedSource(PairSource([pair], pixels=DEEP), tmp_path / "cache")
    first, second = cached[0], cached[0]
    assert isinstance(second.image.base, np.ndarray)  # of the file in the cache
    assert np.array_equal(first.image, second.image)
    assert second.image.dtype == np.uint16
    keys = {PairSource([pair], pixels=pixels).key(0) for pixels in (RGB, Pixels(4, 8), DEEP)}
    assert len(keys) == 3
    bare = Photographs(tmp_path, Names(["a.tif"]))
    before = bare.key(0)
    bare.pixels = DEEP
    assert np.array_equal(bare[0].image, values(DEEP))
    assert bare.key(0) != before


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_a_part_of_a_picture_keeps_its_channels(channels: int) -> None:
    picture = values(Pixels(channels, 16))
    window = Window(0, 0, 24, 34, 12, 24, True)
    shown = place(cut(picture, window, cv2.INTER_LINEAR), window, range(1, channels + 1))
    assert shown.shape == (12, 24, channels)
    assert shown[-1, 0].tolist() == list(range(1, channels + 1))  # the padding; mirrored
    alone = [cut(picture[..., i], window, cv2.INTER_LINEAR) for i in range(channels)]
    scaled = shown[: alone[0].shape[0], ::-1][:, : alone[0].shape[1]]
    # OpenCV rounds more than four channels otherwise.
    assert np.abs(scaled.astype(int) - np.stack(alone, -1)).max() <= (1 if channels > 4 else 0)
    assert np.array_equal(place(picture, whole(12, 17, 1.0), [0] * channels), picture)


def test_a_sample_is_planes_of_the_data_s_depth(tmp_path: Path) -> None:
    pixels = Pixels(1, 16)
    write(tmp_path / "a.tif", values(pixels))
    Image.fromarray(np.zeros((12, 17), np.uint8)).save(tmp_path / "m.png")
    source = PairSource([Pair(tmp_path / "a.tif", tmp_path / "m.png")], pixels=pixels)
    augmentation = Augmentation(crop=(8, 8))
    sample = SegmentationDataset(source, LabelMap(2, 255), 255, 0, augmentation=augmentation, fill=[9])[(0, 0)]
    assert (sample.image.shape, sample.image.dtype) == ((1, 8, 8), torch.uint16)
    plain = SegmentationDataset(source, LabelMap(2, 255), 255, 0)[(0, 0)]
    assert np.array_equal(plain.image.numpy()[0], values(pixels)[..., 0])
    assert collate([sample, sample]).image.dtype == torch.uint16


def options(**more: Any) -> dict[str, Any]:
    classes = {"name": "x", "num_classes": 2, "class_names": ["a", "b"], "palette": [[0, 0, 0], [9, 9, 9]]}
    return {**classes, "mean": [0.5] * 4, "std": [0.25] * 4, "channels": 4, "bits": 16, **more}


class Data(Shapes):
    """A data set without files, to ask for its normalisation."""

    def __init__(self, **more: Any) -> None:
        super(Shapes, self).__init__(**more)


def test_16_bits_are_scaled_by_65535() -> None:
    data = Data(**options())
    image = torch.from_numpy(values(DEEP).transpose(2, 0, 1).copy())[None]
    expected = (image.double() / 65535 - 0.5) / 0.25
    assert torch.allclose(data.normalise(image).double(), expected, atol=1e-5)
    assert Data(**options(bits=8)).normalise(torch.full((1, 4, 1, 1), 255, dtype=torch.uint8)).mean() == pytest.approx(
        2
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"mean": [0.5] * 3},
            "data.mean and data.std are 4 finite numbers each.*prepare with the same options measures",
        ),
        ({"channels": 0}, "data.channels must be a whole number from 1 to 64"),
        ({"channels": 65}, "data.channels must be a whole number from 1 to 64"),
        ({"bits": 12}, "data.bits must be one of 8, 16"),
    ],
)
def test_a_wrong_option_is_told(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Data(**options(**more))


def test_generated_scenes_have_no_other_channels() -> None:
    with pytest.raises(ConfigError, match=r"data=x makes photographs.*are for pictures in files"):
        Data(**options())._as_pixels([])  # type: ignore[arg-type]


def test_runs_of_before_are_still_found() -> None:
    assert with_table({"channels": 3, "bits": 8}) == {}
    assert with_table({"channels": 4, "bits": 16}) == {"channels": 4, "bits": 16}


def test_jitter_of_other_channels_is_brightness_and_contrast() -> None:
    image = torch.from_numpy(values(DEEP).transpose(2, 0, 1).copy())[None]
    found = recoloured(image, torch.tensor([[0.5, 2.0, 9.0, 0.4]]), 65535)
    bright = image.float() * 0.5
    expected = (bright.mean() + 2 * (bright - bright.mean())).clamp(0, 65535)
    assert torch.allclose(found, expected, atol=0.05)


def test_colour_jitter_goes_to_the_device_and_says_what_it_leaves_out() -> None:
    whole_jitter = Augmentation(photometric=[A.ColorJitter((0.7, 1.3), (0.7, 1.3), (0.7, 1.3), (-0.03, 0.03))])
    changed, said = whole_jitter.for_pixels(DEEP)
    assert changed.photometric is None
    assert changed.jitter is not None
    assert (changed.jitter.brightness, changed.jitter.hue) == ((0.7, 1.3), (0.0, 0.0))
    assert said is not None
    assert "saturation and hue are of RGB, and are left out" in said
    assert whole_jitter.jitter is None  # a copy was changed


def test_other_transforms_see_16_bits_from_0_to_1() -> None:
    dark = Augmentation(photometric=[A.RandomBrightnessContrast((-0.2, -0.2), (0, 0), p=1)]).for_pixels(DEEP)[0]
    picture = values(DEEP)
    expected = (picture / 65535 - 0.2).clip(0, 1) * 65535
    assert np.abs(dark.recolour(picture, 0).astype(float) - expected).max() < 2
    assert dark.recolour(picture, 0).dtype == np.uint16


def test_a_transform_of_rgb_alone_is_refused() -> None:
    transforms = [A.HueSaturationValue(), A.GaussianBlur()]
    with pytest.raises(ConfigError, match="HueSaturationValue can't be applied to pictures of 4 channels of 16 bits"):
        Augmentation(photometric=transforms).for_pixels(DEEP)


def test_what_people_look_at() -> None:
    photograph = values(RGB)
    assert viewable(photograph) is photograph
    grey = viewable(values(Pixels(2, 8)))
    assert np.array_equal(grey, np.repeat(values(Pixels(2, 8))[..., :1], 3, axis=2))
    ramp = np.repeat(np.linspace(1000, 3000, 101).astype(np.uint16).reshape(1, -1, 1), 5, axis=2)
    shown = viewable(ramp)
    assert (shown.shape, shown.dtype) == ((1, 101, 3), np.uint8)
    assert (shown.min(), shown.max()) == (0, 255)
    assert abs(int(shown[0, 50, 0]) - 127) <= 1


def test_mean_and_deviation_are_measured() -> None:
    parts = [values(DEEP, height) for height in (5, 9)]
    sums = ChannelSums.of(parts[0], DEEP) + ChannelSums.of(parts[1], DEEP)
    every = np.concatenate(parts).reshape(-1, 4) / 65535
    assert sums.mean == pytest.approx(every.mean(0), abs=1e-5)
    assert sums.std == pytest.approx(every.std(0), abs=1e-5)
    assert sums.options().startswith("'data.mean=[0.")


def test_arrays_tensors_and_files_are_one_picture(tmp_path: Path) -> None:
    picture = values(DEEP)
    tensor = torch.from_numpy(picture.transpose(2, 0, 1).copy())
    for form in (picture, tensor, tensor.double() / 65535, write(tmp_path / "a.tif", picture)):
        assert np.array_equal(as_picture(form, DEEP), picture)
    for wrong, message in (
        (picture[..., :3], r"must be \(H, W, 4\) uint16, got \(12, 17, 3\) uint16"),
        (picture.astype(np.uint8), "got .* uint8"),
        (tensor[:1], r"a tensor must be \(4, H, W\)"),
        (Image.new("RGB", (4, 4)), r"must be \(H, W, 4\) uint16"),
    ):
        with pytest.raises(DataError, match=message):
            as_picture(wrong, DEEP)
    grey = Image.fromarray(values(Pixels(1, 16))[..., 0])
    assert np.array_equal(as_picture(grey, Pixels(1, 16)), values(Pixels(1, 16)))
