"""Videos: frames are streamed through the network, an overlay video and index pictures come out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
# What the containers begin with: lists of other files, which FFmpeg would follow, begin otherwise.
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")


@dataclass(frozen=True)
class Video:
    """A video that can be opened.

    Attributes:
        frames: their number, as the container says; 0 if it does not.
    """

    path: Path
    height: int
    width: int
    rate: float
    frames: int


def probe(path: Path, max_pixels: int) -> Video:
    """Open a video and read its size.

    Raises:
        DataError: if it is missing, no video, or its frames have more than `max_pixels`.
    """
    _refuse_lists(path)
    capture = _open(path)
    try:
        width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        rate, frames = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
    if min(width, height) < 1 or width * height > max_pixels:
        raise DataError(f"{path}: frames of {width} x {height} pixels; 1 to max_pixels={max_pixels} are read")
    return Video(path, height, width, rate if 0 < rate < 1000 else 25.0, max(0, frames))


def frames(video: Video) -> Iterator[UInt8]:
    """Yield (H, W, 3) uint8 RGB, upright.

    Raises:
        DataError: after the last one, if the container promised more; what ends early was cut off. An MP4 or MOV that
            is whole may count pictures that its edit list leaves out.
    """
    capture, number = _open(video.path), 0
    try:
        while True:
            there, frame = capture.read()
            if not there:
                break
            number += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame)
    finally:
        capture.release()
    if number == 0 or (number < video.frames and not _is_trimmed(video.path)):
        raise DataError(f"{video.path}: the video ended after {number} of {video.frames} frames; it is damaged or cut")


class Writer:
    """An MPEG-4 video, under another name until it is whole.

    Raises:
        DataError: if OpenCV can't write it here.
    """

    def __init__(self, path: Path, video: Video) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.draft = path, path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
        # FFmpeg may number the pictures by at most 2^16 parts of a second.
        rate = round(video.rate * 1000) / 1000
        # Most codecs want even sides.
        size = (video.width + video.width % 2, video.height + video.height % 2)
        self.frames = 0
        self.writer = cv2.VideoWriter(str(self.draft), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not self.writer.isOpened():
            raise DataError(f"{video.path}: OpenCV can't write an MPEG-4 video of {video.width} x {video.height} here")

    def add(self, frame: UInt8) -> None:
        """Append an RGB frame; of an odd side the last row or column is repeated."""
        height, width = frame.shape[:2]
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self.writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def close(self) -> None:
        """Finish the video, and give it its name.

        Raises:
            DataError: if it is not whole, as on a full disk, of which OpenCV says nothing.
        """
        self.writer.release()
        if not self.frames:
            return
        capture = cv2.VideoCapture(str(self.draft), cv2.CAP_FFMPEG)
        written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if written < self.frames:
            raise DataError(f"{self.path}: the video could not be written; is the disk full?")
        self.draft.replace(self.path)

    def drop(self) -> None:
        """Leave nothing behind."""
        self.writer.release()
        self.draft.unlink(missing_ok=True)


def _open(path: Path) -> cv2.VideoCapture:
    # FFmpeg is to read this file and nothing that it names.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture.release()
        raise DataError(f"{path}: no video that OpenCV can read here, or damaged")
    return capture


def _is_trimmed(path: Path) -> bool:
    """Tell whether a video is an MP4 or MOV whose boxes all lie within the file."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = 0
        while start + 8 <= end:
            file.seek(start)
            head = file.read(16)
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if start == 0 and kind not in _BOXES:
                return False
            if size == 1:  # a long one
                size = int.from_bytes(head[8:16], "big")
            if size == 0:  # up to the end
                return True
            if size < 8:
                return False
            start += size
    return start == end


def _refuse_lists(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise DataError(f"{path}: the video can't be read ({error.strerror})") from error
    known = head[4:8] in _BOXES or (head[:4] == b"RIFF" and head[8:12] == b"AVI ") or head[:4] == b"\x1a\x45\xdf\xa3"
    if not known:
        raise DataError(f"{path}: no MP4, MOV, AVI, MKV or WebM video")
