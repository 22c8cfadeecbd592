"""Archives: unpacked whole or not at all, and never out of their folder."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from idd_seg.data.download import unpack as module
from idd_seg.data.download.unpack import is_interrupted, is_unpacked, unpack
from idd_seg.errors import DataError

FILES = {
    "top/images/train/a.jpg": b"a" * 3000,
    "top/images/train/b.jpg": os.urandom(5000),
    "top/images/val/ü 1.jpg": b"v",
    "top/readme.txt": b"",
}
KINDS = ("zip", "tar", "tgz")


@contextmanager
def quiet(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def pack(path: Path, files: Mapping[str, bytes], folders: tuple[str, ...] = ("top/", "top/images/")) -> Path:
    """Write an archive of the kind that the ending names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for folder in folders:
                packed.writestr(folder, b"")
            for name, content in files.items():
                packed.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as packed_tar:
        for folder in folders:
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            packed_tar.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed_tar.addfile(info, io.BytesIO(content))
    return path


def run(archive: Path, folder: Path, **options: Any) -> int:
    return unpack(archive, folder, **{"checksum": "sha256:1", "bar": quiet, **options})


def contents(folder: Path) -> dict[str, bytes]:
    """Return the visible files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_unpacked_whole(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"data.{kind}", FILES)
    folder = tmp_path / "new" / "data ü"
    assert not is_unpacked(archive.name, folder)
    assert run(archive, folder) == len(FILES)
    assert contents(folder) == FILES
    assert hidden(folder) == [f".data.{kind}.unpacked"]
    assert is_unpacked(archive.name, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_told_by_the_content(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"data.{kind}", FILES).rename(tmp_path / "data.bin")
    assert run(archive, tmp_path / "data") == len(FILES)


@pytest.mark.parametrize("kind", KINDS)
def test_leading_folders_are_left_out_and_members_chosen(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"data.{kind}", FILES)
    assert run(archive, tmp_path / "data", strip=2, members=["*/train/*", "top/readme.txt"]) == 2
    assert set(contents(tmp_path / "data")) == {"train/a.jpg", "train/b.jpg"}


def test_an_archive_without_what_is_asked_for_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "data.zip", FILES)
    with pytest.raises(DataError, match=r"data\.zip: the archive holds nothing of \*\.mat"):
        run(archive, tmp_path / "data", members=["*.mat"])
    assert not is_unpacked(archive.name, tmp_path / "data")
    assert hidden(tmp_path / "data") == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_operating_system_adds_is_left_out(tmp_path: Path, kind: str) -> None:
    junk = {"__MACOSX/top/._a.jpg": b"x", "top/images/._a.jpg": b"x", "top/.DS_Store": b"x"}
    archive = pack(tmp_path / f"data.{kind}", {**FILES, **junk})
    assert run(archive, tmp_path / "data") == len(FILES)


def test_an_archive_brings_no_mark(tmp_path: Path) -> None:
    mark = b'{"checksum": "md5:1", "files": {}}'
    run(pack(tmp_path / "data.zip", {**FILES, ".other.zip.unpacked": mark}), tmp_path / "data")
    assert not is_unpacked("other.zip", tmp_path / "data")


def test_archives_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    run(pack(tmp_path / "one.zip", FILES), folder)
    other = {"top/images/train/c.jpg": b"c", "top/readme.txt": b"new"}
    run(pack(tmp_path / "two.tar", other), folder)
    assert contents(folder) == {**FILES, **other}
    assert is_unpacked("one.zip", folder)
    assert is_unpacked("two.tar", folder)


def test_a_mark_knows_the_checksum_and_misses_files(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    run(pack(tmp_path / "data.zip", FILES), folder, checksum="md5:1")
    assert is_unpacked("data.zip", folder, "md5:1")
    assert not is_unpacked("data.zip", folder, "md5:2")
    assert not is_unpacked("other.zip", folder)
    (folder / "top" / "images" / "train" / "a.jpg").unlink()
    assert not is_unpacked("data.zip", folder, "md5:1")
    shutil.rmtree(folder / "top" / "images")
    assert not is_unpacked("data.zip", folder, "md5:1")


def test_a_mark_does_not_count_while_the_archive_is_unpacked_again(tmp_path: Path) -> None:
    run(pack(tmp_path / "data.zip", FILES), tmp_path / "data")
    (tmp_path / "data" / ".data.zip.unpacking").mkdir()
    assert not is_unpacked("data.zip", tmp_path / "data")


@pytest.mark.parametrize(
    "mark", ["", "[]", "{}", '{"checksum": "x", "files": [1]}', '{"checksum": "x", "files": {"a": 1}}']
)
def test_a_broken_mark_is_none(tmp_path: Path, mark: str) -> None:
    (tmp_path / ".data.zip.unpacked").write_text(mark)
    assert not is_unpacked("data.zip", tmp_path)


@pytest.mark.parametrize("moved", [0, 1])
def test_a_kill_in_the_middle_leaves_no_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    archive = pack(tmp_path / "data.zip", {"images/a.jpg": b"1", "annotations/a.png": b"2"}, folders=())
    folder, real, moves = tmp_path / "data", shutil.move, []

    def killed(*paths: str) -> Any:
        if len(moves) == moved:
            raise KeyboardInterrupt
        moves.append(paths)
        return real(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "move", killed)
        with pytest.raises(KeyboardInterrupt):
            run(archive, folder)
    assert len(contents(folder)) == moved
    assert is_interrupted(archive.name, folder)
    assert not is_unpacked(archive.name, folder)
    assert run(archive, folder) == 2
    assert contents(folder) == {"images/a.jpg": b"1", "annotations/a.png": b"2"}
    assert is_unpacked(archive.name, folder)
    assert not is_interrupted(archive.name, folder)


def test_a_stop_while_files_are_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "copyfileobj", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(pack(tmp_path / "data.zip", FILES), tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


OUTSIDE = [
    "../evil",
    "a/../../evil",
    "/tmp/evil",
    "\\evil",
    "..\\evil",
    "a\\..\\..\\evil",
    "C:\\evil",
    "C:evil",
    "a/..",
    ".",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    archive = pack(tmp_path / f"data.{kind}", {"good": b"1", name: b"evil"}, folders=())
    with pytest.raises(DataError, match=r"leads out of the folder; the archive is refused"):
        run(archive, tmp_path / "data")
    assert contents(tmp_path / "data") == {}
    assert not (tmp_path / "evil").exists()


@settings(max_examples=60, deadline=None)
@given(name=st.text(st.sampled_from("ab./\\:~ \0é"), min_size=1, max_size=12), kind=st.sampled_from(KINDS))
def test_no_name_whatever_leads_out(tmp_path_factory: pytest.TempPathFactory, name: str, kind: str) -> None:
    assume(not name.startswith("\0"))  # such an archive can't be written
    base = tmp_path_factory.mktemp("names")
    archive = pack(base / f"data.{kind}", {name: b"1"}, folders=())
    before = set(base.iterdir())
    try:
        files = run(archive, base / "data")
    except DataError:
        files = 0
    assert set(base.iterdir()) - before <= {base / "data"}
    assert len([path for path in (base / "data").rglob("*") if path.is_file() and path.suffix != ".unpacked"]) == files


LINKS = {
    tarfile.SYMTYPE: "/etc/passwd",
    tarfile.LNKTYPE: "good",
    tarfile.CHRTYPE: "",
    tarfile.BLKTYPE: "",
    tarfile.FIFOTYPE: "",
}


@pytest.mark.parametrize("kind", list(LINKS))
def test_links_and_devices_of_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "data.tar"
    with tarfile.open(archive, "w") as packed:
        info = tarfile.TarInfo("good")
        packed.addfile(info)
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, LINKS[kind]
        packed.addfile(info)
    with pytest.raises(DataError, match=r"'link' is a link or device"):
        run(archive, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_of_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        info = zipfile.ZipInfo("link")
        info.external_attr = (mode | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"'link' is a link or device"):
        run(archive, tmp_path / "data")


def test_an_encrypted_zip_is_told(tmp_path: Path) -> None:
    data = bytearray(pack(tmp_path / "data.zip", {"a": b"1"}, folders=()).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "data.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"'a' is encrypted; unpack the archive yourself"):
        run(tmp_path / "data.zip", tmp_path / "data")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(module, "SMALL", 1 << 16)
    archive = pack(tmp_path / f"data.{kind}", {"a": b"1", "zeros": bytes(1 << 24), "b": b"2"}, folders=())
    ratio = 0.5 if kind == "tar" else 20
    with pytest.raises(DataError, match=r"unpacks to more than 1000000 files or \d+ bytes"):
        run(archive, tmp_path / "data", max_ratio=ratio)
    assert contents(tmp_path / "data") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_files_are_refused(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"data.{kind}", {f"{i}": b"" for i in range(6)})
    assert run(archive, tmp_path / "six", max_files=6) == 6
    with pytest.raises(DataError, match=r"more than 5 files"):
        run(archive, tmp_path / "five", max_files=5)


def test_a_header_does_not_fill_the_memory(tmp_path: Path) -> None:
    # The text of a long name, of one gigabyte, as a stranger's header may announce it.
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "data.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match=r"damaged \(a header of 1073741824 bytes"):
        run(tmp_path / "data.tar", tmp_path / "data")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.85])
def test_a_truncated_archive_is_told(tmp_path: Path, kind: str, part: float) -> None:
    archive = pack(tmp_path / f"data.{kind}", {f"{i}": os.urandom(3000) for i in range(20)})
    data = archive.read_bytes()
    cut = int(len(data) * part) // 512 * 512 + 100  # within a header or a file, not between them
    archive.write_bytes(data[:cut])
    with pytest.raises(DataError, match=rf"data\.{kind}: the archive is damaged .*get it again"):
        run(archive, tmp_path / "data")
    assert contents(tmp_path / "data") == {}
    assert not is_unpacked(archive.name, tmp_path / "data")


def test_a_flipped_byte_of_a_zip_is_noticed(tmp_path: Path) -> None:
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as packed:  # stored as it is, so that its checksum alone can tell
        packed.writestr("a", bytes(1000))
    data = bytearray(archive.read_bytes())
    data[200] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged \(Bad CRC-32 for file 'a'\)"):
        run(archive, tmp_path / "data")


def test_a_flipped_byte_of_a_zip_by_lzma_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("lzma")
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a", bytes(range(256)) * 40)
    data = bytearray(archive.read_bytes())
    data[44:60] = bytes(16)
    archive.write_bytes(data)
    with pytest.raises(DataError, match="the archive is damaged"):
        run(archive, tmp_path / "data")


def test_a_file_of_another_size_than_announced_is_noticed(tmp_path: Path) -> None:
    data = bytearray(pack(tmp_path / "data.zip", {"a": b"1" * 1000}, folders=()).read_bytes())
    place = data.index(b"PK\x01\x02") + 24  # its size, in the list of files
    data[place : place + 4] = (2000).to_bytes(4, "little")
    (tmp_path / "data.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"damaged \('a' has 1000 of 2000 bytes\)"):
        run(tmp_path / "data.zip", tmp_path / "data")


def test_a_flipped_byte_of_a_tgz_is_noticed(tmp_path: Path) -> None:
    plain = pack(tmp_path / "data.tar", {"a": bytes(1000)}).read_bytes()
    data = bytearray(gzip.compress(plain, compresslevel=0))
    data[-2000] ^= 1  # in the padding, which no file reads
    (tmp_path / "data.tgz").write_bytes(data)
    with pytest.raises(DataError, match=r"damaged \(CRC check failed"):
        run(tmp_path / "data.tgz", tmp_path / "data")


def test_garbage_in_the_place_of_a_header_is_noticed(tmp_path: Path) -> None:
    archive = pack(tmp_path / "data.tar", {"a": bytes(512), "b": bytes(512)}, folders=())
    data = bytearray(archive.read_bytes())
    data[1024:1536] = os.urandom(512)  # b's header
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged \(a header is broken\)"):
        run(archive, tmp_path / "data")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>login</html>", "a web page"),
        (b"\n <HTML>", "a web page"),
        (b"something else", "neither zip, tar nor tgz"),
        (b"", "neither zip, tar nor tgz"),
        (b"PK\x03\x04", "damaged"),
        (b"\x1f\x8b\x08", "damaged"),
    ],
)
def test_a_file_that_is_no_archive_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(DataError, match=rf"data\.zip: .*{message}.*get (it|the archive) again"):
        run(tmp_path / "data.zip", tmp_path / "data")


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 5000), value=st.integers(1, 255), kind=st.sampled_from(KINDS))
def test_a_changed_byte_gives_the_files_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, kind: str
) -> None:
    base = tmp_path_factory.mktemp("bytes")
    archive = pack(base / f"data.{kind}", {"a": b"1" * 700, "b/c": b"2" * 700})
    data = bytearray(archive.read_bytes())
    data[place % len(data)] ^= value
    archive.write_bytes(data)
    refused = None
    try:
        run(archive, base / "data")
    except DataError as error:
        refused = str(error)
    if refused is not None:
        assert f"data.{kind}" in refused
        assert contents(base / "data") == {}
    elif kind == "zip":
        assert set(contents(base / "data").values()) <= {b"1" * 700, b"2" * 700}


def test_a_missing_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"there is no '{tmp_path}/data\.zip'"):
        run(tmp_path / "data.zip", tmp_path / "data")


def test_a_full_disk_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5, 5))
    with pytest.raises(DataError, match=r"no room for the files of data\.zip: 8001 bytes .* has 5 bytes"):
        run(pack(tmp_path / "data.zip", FILES), tmp_path / "data")


def test_a_disk_that_fills_up_is_told_and_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=r"no room for the files of data\.zip: more bytes are needed"):
        run(pack(tmp_path / "data.zip", FILES), tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "top").write_text("mine")
    with pytest.raises(DataError, match=r"data\.zip: can't be unpacked into '.*data'"):
        run(pack(tmp_path / "data.zip", FILES), tmp_path / "data")
    assert not is_unpacked("data.zip", tmp_path / "data")


@pytest.mark.parametrize("kind", KINDS)
def test_the_bar_runs_to_the_end_of_the_archive(tmp_path: Path, kind: str) -> None:
    heard: list[int] = []

    @contextmanager
    def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        assert (title, total) == (f"unpacking data.{kind}", archive.stat().st_size)
        yield heard.append

    archive = pack(tmp_path / f"data.{kind}", {f"{i}": os.urandom(50_000) for i in range(10)})
    run(archive, tmp_path / "data", bar=bar)
    assert heard == sorted(heard)
    assert 0.5 * archive.stat().st_size < heard[-1] <= archive.stat().st_size
