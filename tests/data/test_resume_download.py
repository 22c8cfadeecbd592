"""Downloads, from a server on this machine."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idd_seg.data.download import resume as fetching
from idd_seg.data.download.resume import PartialFile, fetch
from idd_seg.data.download.transfer import byte_bar, digest, parse_checksum, require_space, verify
from idd_seg.errors import ConfigError, DataError
from tests.data.web_server import Site, serve

CONTENT = np.random.default_rng(0).bytes(3 << 20)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def quiet(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def get(site: Site, target: Path, **options: Any) -> None:
    fetch(site.url, target, **{"bar": quiet, "pause": 0.0, "timeout": 5.0, "attempts": 3, **options})


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksum", [None, SHA256, f"md5:{hashlib.md5(CONTENT).hexdigest().upper()}"])
@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_file_comes_whole_and_leaves_nothing_beside(tmp_path: Path, size: int | None, checksum: str | None) -> None:
    target = tmp_path / "new folder ü" / "data.zip"
    with serve(Site(CONTENT)) as site:
        get(site, target, size=size, checksum=checksum)
    assert target.read_bytes() == CONTENT
    assert left(target.parent) == ["data.zip"]


def test_what_is_there_and_right_is_not_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "data.zip"
    target.write_bytes(CONTENT)
    with serve(Site(CONTENT)) as site:
        get(site, target, size=len(CONTENT), checksum=SHA256)
        get(site, target)
    assert site.asked == []


def test_what_is_there_and_wrong_is_kept_and_named(tmp_path: Path) -> None:
    target = tmp_path / "data.zip"
    target.write_bytes(CONTENT[:-1])
    with serve(Site(CONTENT)) as site:
        with pytest.raises(DataError, match=r"data\.zip' has 3145727 bytes.*3145728; remove it"):
            get(site, target, size=len(CONTENT))
        with pytest.raises(DataError, match=r"checksum is sha256:.*remove it"):
            get(site, target, checksum=SHA256)
    assert site.asked == []
    assert target.read_bytes() == CONTENT[:-1]


def test_a_dropped_connection_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    with serve(Site(CONTENT, drops=[2000, 500_000])) as site:
        get(site, tmp_path / "data.zip", checksum=SHA256)
    assert site.starts == [0, 2000, 502_000]
    assert [headers.get("If-Range") for headers in site.asked] == [None, '"1"', '"1"']
    assert left(tmp_path) == ["data.zip"]


def test_a_killed_download_is_taken_up_by_the_next_run(tmp_path: Path) -> None:
    target = tmp_path / "data.zip"
    with serve(Site(CONTENT, drops=[700] * 3)) as site:
        with pytest.raises(DataError, match=r"ended after 1400 of 3145728 bytes, 2 times .*; 1400 bytes are kept"):
            get(site, target, attempts=2)
        assert left(tmp_path) == ["data.zip.part", "data.zip.part.json"]
        get(site, target, checksum=SHA256)
    assert site.starts == [0, 700, 1400, 2100]
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_file_anew(tmp_path: Path) -> None:
    with serve(Site(CONTENT, ranges=False, drops=[1000])) as site:
        get(site, tmp_path / "data.zip", checksum=SHA256)
    assert site.starts == [0, 1000]
    assert (tmp_path / "data.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("conditions", [True, False])
def test_another_version_is_never_mixed_with_the_first(tmp_path: Path, conditions: bool) -> None:
    other = CONTENT[::-1]
    site = Site(CONTENT, drops=[1000], conditions=conditions)

    def replace() -> None:
        if len(site.asked) == 2:
            site.content, site.etag = other, '"2"'

    site.before = replace
    with serve(site):
        get(site, tmp_path / "data.zip")
    assert (tmp_path / "data.zip").read_bytes() == other


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_a_file_without_a_version_is_not_taken_up(tmp_path: Path, etag: str | None) -> None:
    with serve(Site(CONTENT, drops=[1000], etag=etag, conditions=False)) as site:
        get(site, tmp_path / "data.zip", checksum=SHA256)
    assert site.starts == [0, 0]


@pytest.mark.parametrize(
    "notes", ["", "[]", '{"url": 3}', "\0", '{"url": "http://elsewhere/data.zip", "version": "1"}']
)
def test_a_part_of_unknown_origin_is_dropped(tmp_path: Path, notes: str) -> None:
    (tmp_path / "data.zip.part").write_bytes(b"something else")
    (tmp_path / "data.zip.part.json").write_text(notes)
    with serve(Site(CONTENT)) as site:
        get(site, tmp_path / "data.zip", checksum=SHA256)
    assert site.starts == [0]


def with_part(folder: Path, url: str, content: bytes) -> None:
    part = PartialFile(folder / "data.zip")
    part.begin(url, '"1"')
    part.path.write_bytes(content)


def test_a_part_longer_than_the_file_is_dropped(tmp_path: Path) -> None:
    with serve(Site(CONTENT)) as site:
        with_part(tmp_path, site.url, CONTENT + b"more")
        get(site, tmp_path / "data.zip", size=len(CONTENT), checksum=SHA256)
        assert site.starts == [0]
    with serve(Site(CONTENT)) as site:  # its length is not known beforehand
        with_part(tmp_path, site.url, CONTENT + b"more")
        (tmp_path / "data.zip").unlink()
        get(site, tmp_path / "data.zip", checksum=SHA256)
        assert site.starts == [len(CONTENT) + 4, 0]


def test_a_part_that_is_whole_is_not_asked_for_again(tmp_path: Path) -> None:
    with serve(Site(CONTENT)) as site:
        with_part(tmp_path, site.url, CONTENT)
        get(site, tmp_path / "data.zip", size=len(CONTENT), checksum=SHA256)
        assert site.asked == []
        (tmp_path / "data.zip").unlink()
        with_part(tmp_path, site.url, CONTENT)
        get(site, tmp_path / "data.zip", checksum=SHA256)  # the server says that nothing is left
        assert site.starts == [len(CONTENT)]
    assert left(tmp_path) == ["data.zip"]


def test_a_wrong_checksum_removes_what_has_come(tmp_path: Path) -> None:
    with (
        serve(Site(CONTENT[::-1])) as site,
        pytest.raises(DataError, match=rf"{site.url}: .*checksum is sha256:.*{SHA256}.*removed.*data\.zip'"),
    ):
        get(site, tmp_path / "data.zip", checksum=SHA256)
    assert left(tmp_path) == []
    assert len(site.asked) == 1


@pytest.mark.parametrize(("length", "refusal"), [(None, "another version"), (0, "sends more than the 3145728 bytes")])
def test_no_more_is_read_than_the_file_has(tmp_path: Path, length: int | None, refusal: str) -> None:
    read = [0]

    @contextmanager
    def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        yield read.append

    with serve(Site(CONTENT * 4, length=length)) as site, pytest.raises(DataError, match=refusal):
        get(site, tmp_path / "data.zip", size=len(CONTENT), bar=bar)
    assert max(read) <= (len(CONTENT) if length == 0 else 0)
    assert left(tmp_path) == []


def test_a_file_of_unknown_length_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "LIMIT", 1000)
    with serve(Site(CONTENT, length=0)) as site, pytest.raises(DataError, match="sends more than the 1000 bytes"):
        get(site, tmp_path / "data.zip")
    assert left(tmp_path) == []


def test_a_server_that_sends_nothing_gives_no_empty_file(tmp_path: Path) -> None:
    with serve(Site(b"", length=0)) as site, pytest.raises(DataError, match="ended after 0 of some bytes, 3 times"):
        get(site, tmp_path / "data.zip")
    assert not (tmp_path / "data.zip").exists()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_error_that_may_pass_is_outlived(tmp_path: Path, status: int) -> None:
    with serve(Site(CONTENT, statuses=[status, status])) as site:
        get(site, tmp_path / "data.zip", checksum=SHA256)
    assert len(site.asked) == 3


def test_headway_starts_the_count_of_failures_again(tmp_path: Path) -> None:
    with serve(Site(CONTENT, drops=[10, 1 << 20, 10])) as site:
        get(site, tmp_path / "data.zip", checksum=SHA256, attempts=2)
    assert site.starts == [0, 10, 10 + (1 << 20), 20 + (1 << 20)]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_error_that_stays_is_told_at_once(tmp_path: Path, status: int) -> None:
    with (
        serve(Site(CONTENT, statuses=[status] * 9)) as site,
        pytest.raises(
            DataError, match=rf"{site.url}: the server answers {status} .*download it yourself to '.*data\.zip'"
        ),
    ):
        get(site, tmp_path / "data.zip")
    assert len(site.asked) == 1


def test_a_login_page_is_not_taken_for_the_file(tmp_path: Path) -> None:
    with serve(Site(b"<html>", kind="text/html; charset=utf-8")) as site, pytest.raises(DataError, match="a web page"):
        get(site, tmp_path / "data.zip")
    assert left(tmp_path) == []


def test_a_server_may_lead_on_to_another_address(tmp_path: Path) -> None:
    site = Site(CONTENT, drops=[1000])
    with serve(site):
        site.redirect = site.url.replace("/data.zip", "/there")
        get(site, tmp_path / "data.zip", checksum=SHA256)
    assert site.starts == [0, 0, 1000, 1000]


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1"])
def test_a_server_may_not_lead_on_to_another_scheme(tmp_path: Path, where: str) -> None:
    with serve(Site(CONTENT, redirect=where)) as site, pytest.raises(DataError, match=rf"{site.url}.*(302|leads on)"):
        get(site, tmp_path / "data.zip")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/x", "/etc/passwd", "http://", "http://[", "http://a b/", "http://a/\n", ""],
)
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="must begin with http:// or https://"):
        fetch(url, tmp_path / "data.zip")
    assert left(tmp_path) == []


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.zip"
    with pytest.raises(DataError, match=rf"{url}: the connection failed .*3 times in a row.*'{tmp_path}/data\.zip'"):
        fetch(url, tmp_path / "data.zip", attempts=3, pause=0.0, bar=quiet)


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    stop = threading.Event()
    with serve(Site(CONTENT, before=lambda: stop.wait(20) and None)) as site:
        with pytest.raises(DataError, match=r"the connection failed .*timed out.* 2 times"):
            get(site, tmp_path / "data.zip", attempts=2, timeout=0.2)
        stop.set()


def test_the_pause_doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", pauses.append)
    with serve(Site(CONTENT, statuses=[503] * 9)) as site, pytest.raises(DataError, match="503"):
        get(site, tmp_path / "data.zip", attempts=4, pause=2.0)
    assert pauses == [2, 4, 8]


def test_a_full_disk_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with (
        serve(Site(CONTENT)) as site,
        pytest.raises(DataError, match=r"no room for data\.zip\.part: 3145728 bytes .*1000 bytes .* free; make room"),
    ):
        get(site, tmp_path / "data.zip")


def test_a_disk_that_fills_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        file = real(self, mode, *rest, **options)
        return Full(file) if mode == "ab" else file

    monkeypatch.setattr(Path, "open", opened)
    with serve(Site(CONTENT)) as site, pytest.raises(DataError, match=r"no room for data\.zip\.part: more bytes"):
        get(site, tmp_path / "data.zip")


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with serve(Site(CONTENT)) as site, pytest.raises(DataError, match="can't be written"):
        get(site, tmp_path / "file" / "data.zip")


def test_the_bar_hears_of_every_byte_and_of_those_that_were_there(tmp_path: Path) -> None:
    heard: list[tuple[str, int | None, list[int]]] = []

    @contextmanager
    def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        heard.append((title, total, []))
        yield heard[-1][2].append

    with serve(Site(CONTENT, drops=[1000])) as site:
        get(site, tmp_path / "data.zip", bar=bar, checksum=SHA256)
    assert [(title, total, done[0], done[-1]) for title, total, done in heard] == [
        ("data.zip", len(CONTENT), 0, 1000),
        ("data.zip", len(CONTENT), 1000, len(CONTENT)),
        ("checking data.zip.part", len(CONTENT), 1 << 20, len(CONTENT)),
    ]
    assert all(done == sorted(done) for _, _, done in heard)


@pytest.mark.parametrize("length", [None, 0])
def test_the_usual_bar_shows_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int | None) -> None:
    with serve(Site(CONTENT, length=length)) as site:
        get(site, tmp_path / "data.zip", bar=byte_bar)
    assert "data.zip" in capsys.readouterr().out


def test_the_notes_hold_address_and_version(tmp_path: Path) -> None:
    with serve(Site(CONTENT, drops=[10] * 3)) as site, pytest.raises(DataError):
        get(site, tmp_path / "data.zip")
    assert json.loads((tmp_path / "data.zip.part.json").read_text()) == {"url": site.url, "version": '"1"'}


@pytest.mark.parametrize("checksum", ["", "sha256:", "sha256:12", "crc32:00000000", f"md5:{'g' * 32}", "a" * 64])
def test_a_checksum_that_is_none_is_refused(checksum: str) -> None:
    with pytest.raises(ConfigError, match="a checksum is one of md5"):
        parse_checksum(checksum)


def test_checksums_of_known_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert digest(path, "md5", quiet) == "md5:900150983cd24fb0d6963f7d28e17f72"
    assert digest(path, "sha1", quiet) == "sha1:a9993e364706816aba3e25717850c26c9cd0d89d"
    verify(path, 3, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", quiet)
    with pytest.raises(DataError, match="has 3 bytes, and the owner's file has 4"):
        verify(path, 4, None, quiet)


def test_room_is_told_in_bytes(tmp_path: Path) -> None:
    require_space(tmp_path, 0, "x")
    with pytest.raises(
        DataError, match=rf"no room for x: {1 << 60} bytes \(1152921504\.6 GB\) are needed.*'{tmp_path}'"
    ):
        require_space(tmp_path, 1 << 60, "x")
