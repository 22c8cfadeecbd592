"""Photographs in tar shards: found by their headers, read at any place, and refused where they are damaged."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idd_seg.data.pipeline.fingerprint import differences
from idd_seg.data.unlabelled import shards
from idd_seg.data.unlabelled.checks import look_at_unlabelled
from idd_seg.data.unlabelled.find import expanded, find_unlabelled
from idd_seg.data.unlabelled.tar_index import members
from idd_seg.errors import DataError
from tests.data import layouts
from tests.data.layouts import photograph
from tests.data.test_unlabelled import batches, camvid, equal

NAMES = ["a.jpg", "deep/er/b.JPG", f"{'long/' * 30}c.png", "Größe 街.webp", f"{'x' * 180}.jpeg"]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def content(seed: int, size: tuple[int, int] = (20, 30)) -> bytes:
    file = io.BytesIO()
    photograph(np.random.default_rng(seed), size).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        folder = tarfile.TarInfo("deep/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_234_567_890.5 if kind == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        archive.addfile(link)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CamVid's folders, and twelve photographs in three shards, each with a text and a mask beside it."""
    root = layouts.camvid(tmp_path)
    for number in range(3):
        files: dict[str, bytes] = {}
        for i in range(4):
            name = f"{number:03d}_{i}"
            files |= {f"{name}.jpg": content(4 * number + i), f"{name}.txt": b"words", f"{name}.seg.png": content(99)}
        shard(root / "shards" / f"{number:03d}.tar", files)
    return root


def sharded(root: Path, **changes: Any) -> Any:
    return camvid(root, **{"unlabelled": "shards/{000..002}.tar", **changes})


@pytest.mark.parametrize("kind", FORMATS)
def test_the_headers_say_what_tarfile_says(kind: str, tmp_path: Path) -> None:
    names = NAMES[:-1] if kind == "ustar" else NAMES
    path = shard(tmp_path / "a.tar", {name: bytes([i]) * (300 * i) for i, name in enumerate(names)}, FORMATS[kind])
    with tarfile.open(path) as archive:
        wanted = [(m.name, m.offset_data, m.size) for m in archive.getmembers() if m.isfile()]
    assert list(members(path)) == wanted
    assert [name for name, _, _ in wanted] == names


def test_a_size_beyond_8_gigabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    info = tarfile.TarInfo("large.jpg")
    info.size = 9 * 2**30
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + info.size + 1024)  # a hole
    assert list(members(path)) == [("large.jpg", 512, 9 * 2**30)]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1300])


def endless(path: Path) -> None:
    path.write_bytes(path.read_bytes().rstrip(b"\0")[: 512 * 4])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "was cut off"),
        (endless, "was cut off"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(range(1, 251)) * 8), "no tar archive, or a compressed one"),
        (lambda path: path.write_bytes(b""), "was cut off"),
        (lambda path: shard(path, {"notes.txt": b"x"}), "the archive holds no .png"),
        (
            lambda path: shard(path, {"a.jpg": b"x", "a.png": b"x"}),
            "'a.jpg' and 'a.png' are two pictures of one sample",
        ),
        (Path.unlink, "1 of 3 shards are not there"),
    ],
)
def test_a_shard_that_cant_be_used_is_told(damage: Any, message: str, root: Path) -> None:
    damage(root / "shards" / "001.tar")
    with pytest.raises(DataError) as caught:
        sharded(root).setup("fit")
    assert message in str(caught.value)
    assert "001.tar" in str(caught.value)


def test_a_damaged_photograph_is_told_by_shard_and_name(root: Path) -> None:
    shard(root / "shards" / "001.tar", {"a.jpg": b"these are my holidays"})
    with pytest.raises(DataError, match=r"shards/001\.tar/a\.jpg: no picture"):
        look_at_unlabelled(sharded(root))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{8..11}.tar", ["8.tar", "9.tar", "10.tar", "11.tar"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_braces_are_written_out(text: str, names: list[str]) -> None:
    assert expanded(text) == names


@pytest.mark.parametrize("text", ["{5..1}.tar", "{0..10000000}.tar"])
def test_braces_without_end_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no range of up to 1000000 numbers"):
        find_unlabelled(text, tmp_path)


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unpack them"):
        find_unlabelled("a.tar.gz", tmp_path)


def test_photographs_of_shards_are_those_of_files(root: Path) -> None:
    source = find_unlabelled("shards/*.tar", root)
    assert len(source) == 12
    assert source.name(5) == f"{root}/shards/001.tar/001_1.jpg"
    for i in range(3):
        for j in range(4):
            path = root / "files" / f"{i:03d}_{j}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content(4 * i + j))
    files = find_unlabelled("files", root)
    for index in (0, 5, 11):
        assert np.array_equal(source[index].image, files[index].image)


def test_workers_and_another_start_change_no_bit(root: Path) -> None:
    alone = batches(sharded(root, num_workers=0), (0, 6))
    helped = batches(sharded(root, num_workers=2), (0, 6))
    later = batches(sharded(root, num_workers=2), (4, 6))
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert all(equal(a, b) for a, b in zip(alone[4:], later, strict=True))
    assert all("/shards/" in name for batch in alone for name in batch.names[2:])


def test_few_shards_are_open_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "OPEN", 2)
    source: Any = find_unlabelled("shards/*.tar", root)
    for index in (0, 4, 8, 0, 11):
        assert source[index].image.shape == (20, 30, 3)
    assert len(source.opened) == 2
    again = pickle.loads(pickle.dumps(source))
    assert again.opened == {}
    assert torch.equal(torch.from_numpy(again[3].image), torch.from_numpy(source[3].image))


def test_the_places_are_kept_and_found_anew_where_that_is_damaged(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    first = find_unlabelled("shards/*.tar", root, kept)
    assert len(list(kept.glob("*.npz"))) == 3
    monkeypatch.setattr(shards, "_photographs", None)  # not to be called
    again = find_unlabelled("shards/*.tar", root, kept)
    assert list(again.names) == list(first.names)
    assert np.array_equal(again[7].image, first[7].image)
    monkeypatch.undo()
    for path in kept.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert list(find_unlabelled("shards/*.tar", root, kept).names) == list(first.names)
    # A shard that was changed is another one.
    shard(root / "shards" / "002.tar", {"new.jpg": content(3)})
    assert len(find_unlabelled("shards/*.tar", root, kept)) == 9


def test_other_shards_are_told_when_a_run_resumes(root: Path, tmp_path: Path) -> None:
    before = sharded(root).fingerprint("unlabelled")
    moved = root.rename(tmp_path / "elsewhere")
    assert differences(before, sharded(moved).fingerprint("unlabelled")) == ""
    shard(moved / "shards" / "002.tar", {"new.jpg": content(3)})
    assert "9 photographs" in differences(before, sharded(moved).fingerprint("unlabelled"))
