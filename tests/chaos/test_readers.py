"""Readers of what people write and disks damage: the right result, or a DataError; by hypothesis."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.data.pipeline.class_list import read_class_list
from idd_seg.data.pipeline.decode import read_image
from idd_seg.data.pipeline.decode_label import read_label
from idd_seg.data.pipeline.files import read_lines, read_list
from idd_seg.data.pipeline.labels import LabelMap
from idd_seg.data.pipeline.list_file import read_pairs, words
from idd_seg.errors import CheckpointError, ConfigError, DataError


def says(error: Exception, text: str) -> None:
    assert text in str(error)


Folders = pytest.TempPathFactory
quick = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LABEL = np.random.default_rng(0).integers(0, 5, (24, 32)).astype(np.uint8)
PHOTO = np.random.default_rng(1).integers(0, 255, (24, 32, 3)).astype(np.uint8)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@quick
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_list_files_of_any_content(tmp_path_factory: Folders, content: bytes) -> None:
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_bytes(content)
    try:
        rows = [words(line) for _, line in read_lines(path)]
        assert rows
        for line in read_pairs(path, path.parent):
            assert line.image.is_relative_to(path.parent)
            assert ".." not in line.image.parts
    except DataError as error:
        says(error, str(path))


names = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029,\t "), min_size=1
)


@quick
@given(st.lists(names.filter(lambda n: not n.startswith(("/", "\\", "\ufeff"))), min_size=1, max_size=5, unique=True))
def test_a_list_of_names_is_read_as_it_was_written(tmp_path_factory: Folders, written: list[str]) -> None:
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_text("\n".join(written), encoding="utf-8")
    wanted = [name.strip() for name in written if name.strip()]
    if any(".." in Path(name).parts or "\0" in name for name in wanted) or not wanted or len(set(wanted)) < len(wanted):
        with pytest.raises(DataError):
            read_list(path)
        return
    assert read_list(path) == wanted


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
entry = st.fixed_dictionaries(
    {"name": st.text(max_size=4) | plain},
    optional={"colour": st.lists(st.integers(-5, 260), max_size=4), "value": plain, "values": plain, "other": plain},
)


@quick
@given(st.one_of(plain, st.fixed_dictionaries({"classes": st.lists(entry | st.text(max_size=3), max_size=4)})))
def test_class_lists_of_any_structure(tmp_path_factory: Folders, content: object) -> None:
    path = tmp_path_factory.mktemp("classes") / "classes.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    try:
        found = read_class_list(path)
    except DataError as error:
        says(error, str(path))
        return
    assert 2 <= found.count == len(found.palette) == len(set(found.names))
    assert set(found.label_values.values()) <= set(range(found.count))
    assert all(0 <= value <= 255 for value in [*found.label_values, *found.ignored])
    assert all(len(colour) == 3 and 0 <= min(colour) <= max(colour) <= 255 for colour in found.palette)


@quick
@given(st.binary(max_size=300))
def test_class_lists_of_any_bytes(tmp_path_factory: Folders, content: bytes) -> None:
    path = tmp_path_factory.mktemp("classes") / "classes.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match="classes"):
        read_class_list(path)


@quick
@given(
    st.integers(2, 9),
    st.integers(-3, 300),
    st.lists(st.integers(-3, 300), max_size=4),
    st.none() | st.dictionaries(st.integers(-3, 300), st.integers(-2, 10), max_size=5),
    st.integers(0, 255),
)
def test_a_label_map_gives_classes_the_ignore_index_or_an_error(
    num_classes: int, ignore_index: int, ignored: list[int], mapping: dict[int, int] | None, value: int
) -> None:
    try:
        found = LabelMap(num_classes, ignore_index, ignored, mapping)(np.full((2, 3), value, np.uint8), "sample.png")
    except ConfigError:
        return
    except DataError as error:
        says(error, "sample.png")
        says(error, f"value {value};")
        assert value not in (mapping or {})
        return
    expected = mapping[value] if mapping and value in mapping else ignore_index
    if mapping is None and value < num_classes and value not in [*ignored, ignore_index]:
        expected = value
    assert (found == expected).all()


GOOD = png(LABEL), png(PHOTO)


@quick
@given(st.data())
def test_a_png_with_a_flipped_bit_is_the_same_picture_or_none(tmp_path_factory: Folders, data: st.DataObject) -> None:
    path, which = tmp_path_factory.mktemp("png") / "a.png", data.draw(st.integers(0, 1))
    damaged = bytearray(GOOD[which])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        found = (read_label, read_image)[which](path)
    except DataError as error:
        says(error, str(path))
        return
    assert np.array_equal(found, (LABEL, PHOTO)[which])


@quick
@given(st.data())
def test_a_checkpoint_with_a_flipped_bit_is_the_same_or_none(tmp_path_factory: Folders, data: st.DataObject) -> None:
    path, weight = tmp_path_factory.mktemp("checkpoint") / "a.ckpt", torch.arange(600.0)
    torch.save({"idd_seg": {"format": 1}, "state_dict": {"student.a": weight}}, path)
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        found = read_checkpoint(path)
    except CheckpointError as error:
        says(error, str(path))
        return
    assert torch.equal(found.weights["student.a"], weight)
