"""Writing class ids: as indices, in the palette's colours, and over the picture."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from idd_seg.data.pipeline.pixels import viewable
from idd_seg.data.pipeline.source import Raster, UInt8
from idd_seg.errors import ConfigError, UserError
from idd_seg.library import ClassIds, Model
from idd_seg.prediction.inputs import KINDS, PictureJob

ROWS = 256  # that are coloured at a time


class Results:
    """The files of a prediction: `FOLDER/<kind>/<name>.png`.

    Args:
        save: of `KINDS`: `index`, the class ids as 8-bit grey values (16 bits for more than 256 classes); `palette`,
            the same with the classes' colours; `overlay`, the colours over the picture.
        opacity: of the colours over the picture, 0 to 1.
        frames: of videos, also write `index` and `palette` of each frame.

    Raises:
        ConfigError: for an unknown kind, or an opacity out of range.
        UserError: if the folder can't be written to.
    """

    def __init__(
        self, folder: Path, model: Model, save: Sequence[str], opacity: float = 0.5, frames: bool = False
    ) -> None:
        if isinstance(save, str) or not save or any(kind not in KINDS for kind in save):
            raise ConfigError(f"save must be a list of {', '.join(KINDS)}, got '{save}'")
        if isinstance(opacity, bool) or not isinstance(opacity, int | float) or not 0 <= opacity <= 1:
            raise ConfigError(f"opacity must be a number from 0 to 1, got '{opacity}'")
        self.folder, self.model, self.save, self.opacity = folder, model, list(save), float(opacity)
        self.frames = frames
        try_to_write(folder)

    def path(self, kind: str, job: PictureJob, suffix: str = ".png") -> Path:
        """Return where a result is written."""
        return self.folder / kind / job.name.with_name(f"{job.name.name}{suffix}")

    def check(self, jobs: Sequence[PictureJob]) -> None:
        """Refuse to write over what is read, and videos that the network can't take or of which nothing is written.

        Raises:
            ConfigError: that names the file.
        """
        pixels = self.model.card.pixels
        for job in jobs:
            if job.is_video and not pixels.photograph:
                raise ConfigError(f"'{job.source}' is a video of RGB, and the network takes pictures of {pixels}")
            if job.is_video and "overlay" not in self.save and not self.frames:
                raise ConfigError(
                    f"'{job.source}' is a video: save={self.save} writes pictures of its frames with save_frames=true, "
                    "and save=[overlay] a video"
                )
        inputs = {job.source.resolve() for job in jobs}
        for job in jobs:
            for kind in self.save:
                path = self.path(kind, job, ".mp4" if job.is_video else ".png")
                if path.resolve() in inputs:
                    raise ConfigError(f"'{path}' is an input; choose another folder: output=PATH")

    def write(self, job: PictureJob, picture: Raster, ids: ClassIds) -> None:
        """Write what is asked for; `picture` is written upon."""
        self.write_ids(job, ids)
        if "overlay" in self.save:
            shown = viewable(picture)
            self.blend(shown, ids)
            encoded = cv2.imencode(".png", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR, dst=shown))[1]
            write_whole(self.path("overlay", job), lambda draft: draft.write_bytes(encoded.data))

    def write_ids(self, job: PictureJob, ids: ClassIds) -> None:
        """Write the class ids alone, as grey values and in colours, as far as they are asked for."""
        for kind in self.save:
            if kind != "overlay":
                write_whole(self.path(kind, job), partial(self._image(kind, ids).save, format="PNG"))

    def _image(self, kind: str, ids: ClassIds) -> Image.Image:
        if ids.dtype != np.uint8:
            return Image.fromarray(ids if kind == "index" else self.model.colour(ids))
        image = Image.fromarray(ids)
        if kind == "palette":
            image.putpalette([value for colour in self.model.palette for value in colour])
        return image

    def blend(self, picture: UInt8, ids: ClassIds) -> None:
        """Lay the classes' colours over a picture (H, W, 3), in place."""
        for top in range(0, len(picture), ROWS):
            part = picture[top : top + ROWS]
            colours = self.model.colour(ids[top : top + ROWS])
            cv2.addWeighted(colours, self.opacity, part, 1 - self.opacity, 0, dst=part)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target and rename, so that no half file is ever seen and no link is followed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: threads write at once, and long names may differ behind what fits.
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        write(draft)
        draft.chmod(0o666 & ~_UMASK)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # can only be read by being set, which is no business of threads


def try_to_write(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"the output folder '{folder}' can't be written to ({error.strerror}); output=PATH") from error
