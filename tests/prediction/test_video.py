"""Videos: an overlay video and index pictures of each frame; what is no video or cut off is named."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import idd_seg
from idd_seg import predict as command
from idd_seg.errors import DataError
from idd_seg.prediction.streaming import background
from idd_seg.prediction.video import Video, Writer, frames, probe
from tests.commands import call
from tests.shipping import save_run

FRAMES = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey video that becomes brighter with each frame, of an odd height."""
    path = tmp_path_factory.mktemp("video") / "a clip.mp4"
    writer = Writer(path, Video(path, 47, 64, 10.0, 0))
    for i in range(FRAMES):
        writer.add(np.full((47, 64, 3), 20 * i, np.uint8))
    writer.close()
    return path


def test_frames_are_read_in_their_order(clip: Path) -> None:
    video = probe(clip, 10**6)
    assert (video.height, video.width, video.rate, video.frames) == (48, 64, 10.0, FRAMES)
    means = [frame.mean() for frame in frames(video)]
    assert np.abs(np.array(means) - 20 * np.arange(FRAMES)).max() < 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("save", ["[overlay]", "[index,overlay]"])
def test_the_command(save: str, clip: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [f"checkpoint={checkpoint}", f'input="{clip}"', "hydra.run.dir=out", f"save={save}", "batch_size=3"]
    each = "index" in save
    assert call(command, *options, f"save_frames={str(each).lower()}", folder=tmp_path, patch=monkeypatch) == 0
    found = probe(tmp_path / "out" / "overlay" / "a clip.mp4", 10**6)
    assert (found.height, found.width, found.rate, found.frames) == (48, 64, 10.0, FRAMES)
    model = idd_seg.load(checkpoint, device="cpu")
    shown = list(frames(probe(clip, 10**6)))
    if each:
        pictures = sorted((tmp_path / "out" / "index" / "a clip").iterdir())
        assert [p.name for p in pictures] == [f"{i:06d}.png" for i in range(FRAMES)]
        for picture, frame in zip(pictures, shown, strict=True):
            assert (np.array(Image.open(picture)) == model.predict(frame)).mean() > 0.999
    else:
        assert not (tmp_path / "out" / "index").exists()
    for frame, overlaid in zip(shown, frames(found), strict=True):
        expected = 0.5 * frame + 0.5 * model.colour(model.predict(frame))
        assert np.abs(expected - overlaid).mean() < 12  # MPEG-4 loses some


def test_a_video_without_anything_to_write_is_refused(
    clip: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [f"checkpoint={checkpoint}", f'input="{clip}"', "hydra.run.dir=out", "save=[index]"]
    assert call(command, *options, folder=tmp_path, patch=monkeypatch) == 1
    assert "save_frames=true" in capfd.readouterr().err


def test_a_video_that_was_cut_off_keeps_what_could_be_read(
    clip: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(FRAMES):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    data = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 6 // 10])
    options = [f"checkpoint={checkpoint}", "input=cut.avi", "hydra.run.dir=out"]
    assert call(command, *options, folder=tmp_path, patch=monkeypatch) == 1
    assert "the video ended after" in capfd.readouterr().err
    assert 0 < probe(tmp_path / "out" / "overlay" / "cut.mp4", 10**6).frames < FRAMES


def moved_edit_list(data: bytes, frames: int) -> bytes:
    """Let the edit list of an MP4 show so many of its pictures, as a trim without another encoding does."""
    place = data.index(b"elst")
    entry = place + 4 + 4 + 4  # version and flags, number of entries
    duration = int.from_bytes(data[entry : entry + 4], "big") * frames // FRAMES
    return data[:entry] + duration.to_bytes(4, "big") + data[entry + 4 :]


def test_a_video_that_was_trimmed_is_whole_and_one_that_was_cut_is_not(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    trimmed = tmp_path / "trimmed.mp4"
    trimmed.write_bytes(moved_edit_list(data, 6))
    video = probe(trimmed, 10**6)
    assert video.frames == FRAMES
    assert 0 < len(list(frames(video))) < FRAMES
    # With something behind that is promised and not there.
    trimmed.write_bytes(moved_edit_list(data, 6) + (10**6).to_bytes(4, "big") + b"free")
    with pytest.raises(DataError, match="damaged or cut"):
        list(frames(probe(trimmed, 10**6)))


def test_a_video_that_could_not_be_written_leaves_the_one_before(clip: Path, tmp_path: Path) -> None:
    """OpenCV says nothing of a full disk."""
    there = tmp_path / "a.mp4"
    shutil.copy(clip, there)
    writer = Writer(there, Video(there, 48, 64, 10.0, 0))
    for _ in range(3):
        writer.add(np.zeros((48, 64, 3), np.uint8))
    writer.writer.release()
    writer.draft.write_bytes(writer.draft.read_bytes()[:60])
    with pytest.raises(DataError, match="could not be written; is the disk full"):
        writer.close()
    assert there.read_bytes() == clip.read_bytes()


def test_what_is_no_video_is_refused(clip: Path, tmp_path: Path) -> None:
    playlist = tmp_path / "a.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    with pytest.raises(DataError, match="no MP4, MOV, AVI, MKV or WebM video"):
        probe(playlist, 10**6)
    (tmp_path / "b.mp4").write_bytes(clip.read_bytes()[:40])
    with pytest.raises(DataError, match=r"b.mp4: no video that OpenCV can read"):
        probe(tmp_path / "b.mp4", 10**6)
    with pytest.raises(DataError, match="max_pixels=100"):
        probe(clip, 100)
    with pytest.raises(DataError, match="can't be read"):
        probe(tmp_path / "nowhere.mp4", 100)


def test_the_input_is_never_written_over(
    clip: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "overlay").mkdir()
    shutil.copy(clip, tmp_path / "overlay" / "a.mp4")
    options = [f"checkpoint={checkpoint}", "input=overlay/a.mp4", "output=.", "hydra.run.dir=out"]
    assert call(command, *options, folder=tmp_path, patch=monkeypatch) == 1
    assert (tmp_path / "overlay" / "a.mp4").read_bytes() == clip.read_bytes()


def test_items_made_in_the_background_come_in_order_and_errors_after_them() -> None:
    def made(count: int) -> Any:
        yield from range(count)
        raise DataError("the end")

    found: list[int] = []
    before = threading.active_count()
    with pytest.raises(DataError, match="the end"):
        found.extend(background(made(20), 3))
    assert found == list(range(20))
    generator = background(iter(range(1000)), 3)
    assert [next(generator) for _ in range(5)] == [0, 1, 2, 3, 4]
    generator.close()
    assert threading.active_count() == before
