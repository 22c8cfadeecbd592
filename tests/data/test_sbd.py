"""The augmented training set of Pascal VOC, converted from a tiny SBD."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from idd_seg.data.download import matlab5, sbd
from idd_seg.data.download.sbd import AugmentedVOC, read_mat
from idd_seg.data.voc import VOC
from idd_seg.errors import DataError
from idd_seg.ops.colours import bit_colour
from tests.data.sources import SIZE, label_map, photograph
from tests.data.sources import settings as common

scipy_io = pytest.importorskip("scipy.io")

VOC_TRAIN, VOC_VAL = ["2007_000001", "2007_000002"], ["2008_000003", "2008_000004"]
SBD_TRAIN, SBD_VAL = ["2008_000005", "2007_000001", "2008_000003"], ["2008_000006", "2007_000002"]
AUGMENTED = ["2007_000001", "2007_000002", "2008_000005", "2008_000006"]


def write_mat(path: Path, label: NDArray[Any], compressed: bool = True) -> None:
    """Write a class map in the fields of SBD's files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    boundaries = np.empty((20, 1), object)
    boundaries[:] = [[np.zeros(SIZE)]] * 20
    content = {"Boundaries": boundaries, "Segmentation": label, "CategoriesPresent": np.unique(label)}
    scipy_io.savemat(path, {"GTcls": content}, do_compression=compressed)


def listed(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def seed_of(name: str) -> int:
    return int(name[-1])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """VOC2012's folders with SBD in `sbd/`; VOC's own labels have a border of 255."""
    root = tmp_path / "VOC2012 ü"
    listed(root / "ImageSets/Segmentation/train.txt", VOC_TRAIN)
    listed(root / "ImageSets/Segmentation/val.txt", VOC_VAL)
    listed(root / "sbd/train.txt", SBD_TRAIN)
    listed(root / "sbd/val.txt", SBD_VAL)
    (root / "JPEGImages").mkdir()
    (root / "SegmentationClass").mkdir()
    for name in sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL}):
        photograph(seed_of(name)).save(root / "JPEGImages" / f"{name}.jpg")
    for name in VOC_TRAIN + VOC_VAL:
        label = label_map(100 + seed_of(name), 21)
        label[0] = 255
        picture = Image.fromarray(label)
        picture.putpalette([channel for index in range(256) for channel in bit_colour(index)])
        picture.save(root / "SegmentationClass" / f"{name}.png")
    for name in SBD_TRAIN + SBD_VAL:
        write_mat(root / "sbd/cls" / f"{name}.mat", label_map(seed_of(name), 21))
    return root


def convert(root: Path, expected: int | None = 4) -> list[str]:
    said: list[str] = []
    AugmentedVOC(expected=expected)(root, said.append)
    return said


def label_of(root: Path, name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(root / "SegmentationClassAug" / f"{name}.png"))


def test_the_set_is_sbd_and_voc_train_without_voc_val(root: Path) -> None:
    assert not AugmentedVOC().done(root)
    assert convert(root) == ["trainaug: 4 images, 2 with VOC's own annotation, 2 with SBD's"]
    assert (root / "ImageSets/Segmentation/trainaug.txt").read_text().split() == AUGMENTED
    assert sorted(path.stem for path in (root / "SegmentationClassAug").iterdir()) == AUGMENTED
    assert AugmentedVOC().done(root)


def test_voc_s_own_annotation_wins(root: Path) -> None:
    convert(root)
    for name in VOC_TRAIN:
        own = (root / "SegmentationClass" / f"{name}.png").read_bytes()
        assert (root / "SegmentationClassAug" / f"{name}.png").read_bytes() == own
        assert (label_of(root, name)[0] == 255).all()


def test_sbd_s_annotation_keeps_its_values_in_voc_s_palette(root: Path) -> None:
    convert(root)
    for name in ("2008_000005", "2008_000006"):
        picture = Image.open(root / "SegmentationClassAug" / f"{name}.png")
        assert picture.mode == "P"
        assert np.array_equal(label_of(root, name), label_map(seed_of(name), 21))
        palette = picture.getpalette()
        assert palette is not None
        assert palette[:3] + palette[3:6] + palette[45:48] + palette[60:63] == [
            *[0, 0, 0],  # background
            *[128, 0, 0],  # aeroplane
            *[192, 128, 128],  # person
            *[0, 64, 128],  # tv monitor
        ]


def test_the_data_module_reads_it(root: Path) -> None:
    convert(root)
    data = VOC(str(root), "trainaug", "SegmentationClassAug", **common(21)).dataset("train")
    assert len(data) == 4
    assert {Path(data[0, i].name).stem for i in range(4)} == set(AUGMENTED)


def test_a_second_run_changes_nothing_and_needs_no_sbd(root: Path) -> None:
    convert(root)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (root / "SegmentationClassAug").iterdir()}
    for path in sorted((root / "sbd").rglob("*.mat")):
        path.unlink()
    assert convert(root) == []
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


def test_an_interrupted_run_is_taken_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, read = sbd.read_mat, []

    def killed(path: Path) -> Any:
        if read:
            raise KeyboardInterrupt
        read.append(path)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(sbd, "read_mat", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(root)
    assert not (root / "ImageSets/Segmentation/trainaug.txt").exists()
    assert len(list((root / "SegmentationClassAug").iterdir())) == 3
    (root / "sbd/cls/2008_000005.mat").unlink()  # is not read again
    convert(root)
    assert AugmentedVOC().done(root)


def test_a_label_that_has_gone_is_made_again(root: Path) -> None:
    convert(root)
    (root / "SegmentationClassAug/2008_000006.png").unlink()
    assert not AugmentedVOC().done(root)
    convert(root)
    assert AugmentedVOC().done(root)


def test_another_number_is_told(root: Path) -> None:
    assert convert(root, expected=10582)[1] == (
        "warning: the augmented set has 10582 images, and there are 4; lists are amiss"
    )
    assert (AugmentedVOC().expected, AugmentedVOC().folder) == (10582, "sbd")


def test_a_missing_photograph_is_told_before_anything_is_written(root: Path) -> None:
    (root / "JPEGImages/2008_000005.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 4 photographs .* '.*2008_000005\.jpg'; unpack Pascal VOC 2012 first"):
        convert(root)
    assert not (root / "SegmentationClassAug").exists()


def test_a_photograph_of_another_size_is_told(root: Path) -> None:
    photograph(0).resize((9, 7)).save(root / "JPEGImages/2008_000005.jpg")
    with pytest.raises(DataError, match=r"2008_000005\.mat: the label is 16 x 12 pixels, its photograph 9 x 7"):
        convert(root)


def test_a_damaged_photograph_is_told(root: Path) -> None:
    (root / "JPEGImages/2008_000005.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"2008_000005\.jpg: the picture can't be read"):
        convert(root)


def test_a_missing_mat_is_told(root: Path) -> None:
    (root / "sbd/cls/2008_000005.mat").unlink()
    with pytest.raises(DataError, match=r"2008_000005\.mat: the file can't be read \(No such file"):
        convert(root)


def test_a_list_that_leads_out_is_refused(root: Path) -> None:
    listed(root / "sbd/val.txt", ["../../evil"])
    with pytest.raises(DataError, match="leads out of the data set"):
        convert(root)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64])
def test_class_maps_of_any_whole_numbers_are_read(tmp_path: Path, kind: type, compressed: bool) -> None:
    label = label_map(3, 21)
    write_mat(tmp_path / "a.mat", label.astype(kind), compressed)
    found = read_mat(tmp_path / "a.mat")
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, label)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.full((3, 4), 21, np.uint8), "has the value 21; there are the classes 0 to 20"),
        (np.full((3, 4), 255, np.uint8), "has the value 255"),
        (np.full((3, 4), -1, np.int16), "has the value -1"),
        (np.full((3, 4), 256, np.int16), "has the value 256"),
        (np.zeros((3, 4)), "no matrix of whole numbers"),
        (np.zeros((3, 4, 3), np.uint8), "no matrix of whole numbers"),
        (np.zeros((0, 4), np.uint8), "a matrix 0 x 4 of 0 numbers"),
        (np.array("text"), "no matrix of whole numbers"),
    ],
)
def test_another_content_is_refused(tmp_path: Path, label: NDArray[Any], message: str) -> None:
    write_mat(tmp_path / "a.mat", label)
    with pytest.raises(DataError, match=rf"a\.mat: .*{re.escape(message)}"):
        read_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("content", [{"GTinst": 1}, {"GTcls": 1}, {"GTcls": {"Boundaries": 1}}])
def test_another_file_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    scipy_io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(DataError, match=r"a\.mat: the file is damaged, or none of SBD's class maps"):
        read_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("content", [b"", b"x", b"\x89HDF\r\n" + bytes(200), bytes(128), bytes(200)])
def test_a_file_that_is_no_mat_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mat: the file is damaged"):
        read_mat(tmp_path / "a.mat")


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(1, 255), cut=st.booleans())
def test_whatever_is_broken_gives_a_class_map_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: bool
) -> None:
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    write_mat(path, label_map(0, 21), compressed=False)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place] ^= value
    path.write_bytes(data[:place] if cut else data)
    try:
        found = read_mat(path)
    except DataError as error:
        message = str(error)
    else:
        message = str(path)
        assert found.max() <= 20
    assert str(path) in message


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.mat").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(DataError, match=r"a\.mat: 1073741824 bytes are more than such a file has"):
        read_mat(tmp_path / "a.mat")


def element(order: str, kind: int, body: bytes, small: bool = False) -> bytes:
    """Return an element of a MATLAB 5 file."""
    if small:
        return struct.pack(f"{order}I", len(body) << 16 | kind) + body.ljust(4, b"\0")
    return (
        struct.pack(f"{order}II", kind, len(body)) + body + bytes(-len(body) % 8 if kind != matlab5.COMPRESSED else 0)
    )


def array(order: str, kind: int, shape: tuple[int, int], name: bytes, content: bytes, small: bool) -> bytes:
    body = element(order, matlab5.UINT32, struct.pack(f"{order}II", kind, 0))
    body += element(order, matlab5.INT32, struct.pack(f"{order}ii", *shape))
    return element(order, matlab5.MATRIX, body + element(order, matlab5.INT8, name, small and len(name) <= 4) + content)


def file_of(
    order: str,
    label: NDArray[np.uint8],
    small: bool = False,
    compressed: bool = False,
    kind: int = 9,
    outer: int = matlab5.STRUCT,
    shape: tuple[int, int] = (1, 1),
    fields: bytes = b"Presents,Segmentation",
) -> bytes:
    """Return a file with another variable and another field before the class map."""
    other = array(order, 9, (1, 1), b"", element(order, 2, b"\1", small), small)
    segmentation = array(order, kind, label.shape, b"", element(order, 2, label.tobytes("F"), label.size <= 4), small)
    names = b"".join(name.ljust(16, b"\0") for name in fields.split(b","))
    content = element(order, matlab5.INT32, struct.pack(f"{order}i", 16), small) + element(order, matlab5.INT8, names)
    variables = [
        array(order, 9, (1, 1), b"x", element(order, 2, b"\1", small), small),
        array(order, outer, shape, b"GTcls", content + other + segmentation, small),
    ]
    if compressed:
        variables = [element(order, matlab5.COMPRESSED, zlib.compress(variable)) for variable in variables]
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49)
    return header + b"".join(variables)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [SIZE, (1, 3), (2, 2), (5, 1)])
def test_files_are_read_as_the_format_says(
    tmp_path: Path, order: str, small: bool, compressed: bool, shape: tuple[int, int]
) -> None:
    label = np.random.default_rng(0).integers(0, 21, shape).astype(np.uint8)
    path = tmp_path / "a.mat"
    path.write_bytes(file_of(order, label, small, compressed))
    assert np.array_equal(read_mat(path), label)
    assert np.array_equal(scipy_io.loadmat(path)["GTcls"][0]["Segmentation"][0], label)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(file_of(order, np.zeros((50, 40), np.uint8), compressed=True))
    read_mat(path)
    monkeypatch.setattr(sbd, "CONTENT_LIMIT", 2000)
    with pytest.raises(DataError, match=r"an element is cut off, or larger than it may be"):
        read_mat(path)
    one = array(order, 9, (1, 600), b"x", element(order, 2, bytes(600)), False)
    several = b"".join(
        element(order, matlab5.COMPRESSED, zlib.compress(one)) for _ in range(4)
    )  # each within the limit
    path.write_bytes(path.read_bytes()[:128] + several)
    with pytest.raises(DataError, match="larger than it may be"):
        read_mat(path)
    monkeypatch.setattr(sbd, "CONTENT_LIMIT", 5000)
    with pytest.raises(DataError, match="no variable GTcls"):
        read_mat(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fields": b"Presents,Boundaries"}, "GTcls has no field Segmentation"),
        ({"fields": b"Segmentation"}, "GTcls has not as many fields as names"),
        ({"fields": b"Presents,Segmentation,More"}, "GTcls has not as many fields as names"),
        ({"outer": 1}, "GTcls is no struct"),
        ({"shape": (1, 2)}, "GTcls is no struct"),
        ({"kind": 4}, "no matrix of whole numbers"),  # text
        ({"kind": 6}, "no matrix of whole numbers"),
    ],
)
def test_a_file_of_another_structure_is_told(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    (tmp_path / "a.mat").write_bytes(file_of("<", label_map(0, 21), **changes))
    with pytest.raises(DataError, match=told):
        read_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_is_cut_off_is_told(tmp_path: Path, compressed: bool) -> None:
    data = file_of("<", label_map(0, 21), compressed=compressed)
    (tmp_path / "a.mat").write_bytes(data[:-20])
    with pytest.raises(DataError, match="an element is cut off"):
        read_mat(tmp_path / "a.mat")


def test_a_small_element_that_is_large_is_told(tmp_path: Path) -> None:
    data = file_of("<", label_map(0, 21), small=True)
    small = struct.pack("<I", 1 << 16 | matlab5.INT8) + b"x"
    assert small in data
    (tmp_path / "a.mat").write_bytes(data.replace(small, struct.pack("<I", 9 << 16 | matlab5.INT8) + b"x"))
    with pytest.raises(DataError, match="an element is cut off"):
        read_mat(tmp_path / "a.mat")
