"""The worst and the most changed pictures of a run, from its archive or in spite of it."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idd_seg.plotting.error_maps import LOST, RIGHT, UNKNOWN, WON, WRONG
from idd_seg.report import main
from idd_seg.reporting.cases import read_cases
from tests.reporting.folders import add_exhibits, add_scored, config, make_run


def decoded(uri: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def run(folder: Path, mious: dict[str, float | None], wrong: int = 0) -> Path:
    folder.mkdir()
    add_scored(folder, mious, wrong)
    return folder


def test_the_worst_of_a_run_alone(tmp_path: Path) -> None:
    notes: list[str] = []
    own = run(tmp_path / "own", {"a": 0.6, "b": 0.2, "unlabelled": None, "c": 0.4}, wrong=3)
    found = read_cases(own, None, 3, 2, notes)
    assert found is not None
    assert found["chosen"] == {"worst": ["b", "c"]}
    assert (found["scored"], found["of"], notes) == (4, 100, [])
    picture = found["pictures"]["b"]
    assert picture["lost"] == pytest.approx(3 / 15, abs=1e-4)  # of 15 labelled columns
    assert picture["shown"] == [0, 1, 2]
    expected = [UNKNOWN] + 12 * [RIGHT] + 3 * [LOST]
    assert (decoded(picture["errors"]) == np.array(expected)).all()
    assert "twin" not in picture


def test_what_changed_against_the_twin(tmp_path: Path) -> None:
    own = run(tmp_path / "own", {"a": 0.6, "b": 0.2, "c": 0.4, "d": 0.9, "own": 0.1}, wrong=2)
    twin = run(tmp_path / "twin", {"a": 0.5, "b": 0.5, "c": 0.1, "d": 0.9, "theirs": 0.1}, wrong=4)
    notes: list[str] = []
    found = read_cases(own, twin, 3, 4, notes)
    assert found is not None
    assert found["chosen"] == {"worst": ["own", "b", "c", "a"], "improved": ["c", "a"], "worsened": ["b"]}
    expected = [UNKNOWN] + 11 * [RIGHT] + 2 * [WON] + 2 * [WRONG]
    assert (decoded(found["pictures"]["c"]["errors"]) == np.array(expected)).all()
    assert found["pictures"]["c"]["miou"] == {"student": 0.4, "twin": 0.1}
    assert "twin" not in found["pictures"]["own"]
    assert notes == []


def test_a_twin_of_another_truth_is_noted(tmp_path: Path) -> None:
    own, twin = run(tmp_path / "own", {"a": 0.6}), tmp_path / "twin"
    twin.mkdir()
    add_scored(twin, {"a": 0.5}, classes=2)
    notes: list[str] = []
    found = read_cases(own, twin, 3, 4, notes)
    assert found is not None
    assert found["pictures"] == {}
    assert notes == ["exhibits: the twin has another truth for a"]


def test_a_run_of_before_has_none(tmp_path: Path) -> None:
    notes: list[str] = []
    assert read_cases(tmp_path, None, 3, 4, notes) is None
    assert notes == []


def repacked(path: Path, change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def large(members: dict[str, bytes]) -> None:
    out = io.BytesIO()
    Image.new("P", (20_000, 2)).save(out, "PNG")
    members["0_student.png"] = out.getvalue()


BROKEN: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "no list": (lambda m: m.pop("scored.json") and None, "scored.json is missing"),
    "another format": (lambda m: m.update({"scored.json": b'{"format": 7}'}), "unknown format"),
    "no JSON": (lambda m: m.update({"scored.json": b"{"}), "is broken"),
    "no mask": (lambda m: m.pop("0_student.png") and None, "0_student.png is missing"),
    "a cut mask": (lambda m: m.update({"0_student.png": m["0_student.png"][:60]}), "can't be decoded"),
    "a script": (lambda m: m.update({"0_image.jpg": b"<svg onload=alert(1)>"}), "is no PNG or JPEG"),
    "a huge mask": (large, "more than 4096 pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_noted_and_left_out(tmp_path: Path, name: str) -> None:
    own = run(tmp_path / "own", {"a": 0.6, "b": 0.7})
    change, message = BROKEN[name]
    repacked(own / "exhibits" / "scored.zip", change)
    notes: list[str] = []
    found = read_cases(own, None, 3, 4, notes)
    assert any(message in note for note in notes), notes
    assert found is None or set(found["pictures"]) == {"b"}


@pytest.mark.parametrize("most", [0, 1, 4])
def test_the_page_holds_as_many_as_are_asked_for(tmp_path: Path, most: int) -> None:
    for name, cfg in (("own", config(("ce", "kd"))), ("twin", config())):
        add_exhibits(make_run(tmp_path / name, cfg))
        add_scored(tmp_path / name, {f"{i}": (i * 3 % 5 if name == "own" else i) / 10 for i in range(5)})
    main([str(tmp_path), "--out", str(tmp_path / "r.html"), "--worst", str(most), "--pictures", "1"])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="exhibits-0">(.*?)</script>', page, re.S)
    assert found
    shown = json.loads(found[1])["cases"]
    assert (shown is None) == (most == 0)
    # Of own - twin: 0, 2, -1, 1, -2 tenths.
    expected = {"worst": ["0", "2", "4", "1"], "improved": ["1", "3"], "worsened": ["4", "2"]}
    assert shown is None or shown["chosen"] == {kind: names[:most] for kind, names in expected.items()}


def test_compressed_members_are_not_unpacked(tmp_path: Path) -> None:
    own = run(tmp_path / "own", {"a": 0.6})
    repacked(own / "exhibits" / "scored.zip", lambda _: None, zipfile.ZIP_DEFLATED)
    notes: list[str] = []
    assert read_cases(own, None, 3, 4, notes) is None
    assert "compressed or too large" in notes[0]


def test_an_archive_of_garbage_is_noted(tmp_path: Path) -> None:
    own = run(tmp_path / "own", {"a": 0.6})
    (own / "exhibits" / "scored.zip").write_bytes(b"PK\x03\x04" + bytes(200))
    notes: list[str] = []
    assert read_cases(own, None, 3, 4, notes) is None
    assert notes == ["exhibits: scored.zip is broken"]


def test_names_in_the_list_are_only_members_of_the_archive(tmp_path: Path) -> None:
    own = run(tmp_path / "own", {"a": 0.6})
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")

    def point_outside(members: dict[str, bytes]) -> None:
        content = json.loads(members["scored.json"])
        content["images"][0]["image"] = "../../secret.png"
        members["scored.json"] = json.dumps(content).encode()

    repacked(own / "exhibits" / "scored.zip", point_outside)
    notes: list[str] = []
    found = read_cases(own, None, 3, 4, notes)
    assert found is not None
    assert found["pictures"] == {}
    assert "../../secret.png is missing in scored.zip" in notes[0]
