"""The folder that `label` fills: masks, how certain each is, and the list that a training takes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from idd_seg.data.pipeline.decode import size_of, stored_by
from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.data.pipeline.source import Raster
from idd_seg.errors import ConfigError, DataError, UserError
from idd_seg.library import Confident
from idd_seg.prediction.inputs import PictureJob
from idd_seg.prediction.mask_values import MaskValues
from idd_seg.prediction.results import try_to_write, write_whole

MASKS, LIST, CLASSES, ROWS, SETTINGS = "masks", "list.txt", "classes.yaml", "certainty.tsv", "label.json"
HEAD = "mask\tcertainty\tconfident\tbytes\ttime\n"


@dataclass(frozen=True)
class Certainty:
    """Of one mask: the mean probability of its classes, and the share of its pixels that have one, 0 to 1."""

    mean: float
    share: float
    state: str  # size and time of the photograph


class LabelFolder:
    """Masks of photographs, written one by one, so that a stopped call goes on.

    Args:
        settings: plain values that all masks of the folder depend on.
        overwrite: begin anew, whatever the folder holds.
        pixels: of the pictures.

    Raises:
        ConfigError: if the folder holds masks of other settings.
        UserError: if it can't be written to.
    """

    def __init__(
        self,
        folder: Path,
        values: MaskValues,
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
        pixels: Pixels = RGB,
    ) -> None:
        self.folder, self.values, self.pixels = folder, values, pixels
        self.lock = threading.Lock()
        try_to_write(folder)
        self._take(dict(settings), overwrite=overwrite)
        self.rows = self._read_rows()

    def _take(self, settings: dict[str, Any], *, overwrite: bool) -> None:
        path = self.folder / SETTINGS
        if overwrite:
            for name in (ROWS, SETTINGS, LIST):
                (self.folder / name).unlink(missing_ok=True)
        before = _settings_in(path)
        wanted = json.loads(json.dumps(settings))
        if before is not None and before != wanted:
            key = next(key for key in [*before, *wanted] if before.get(key) != wanted.get(key))
            raise ConfigError(
                f"'{self.folder}' holds masks made with {key}={before.get(key)}, not {wanted.get(key)}; choose another "
                "folder (output=PATH), or overwrite=true, which makes all of them anew"
            )
        write_whole(path, lambda draft: draft.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8"))

    def _read_rows(self) -> dict[str, Certainty]:
        """Return what is known of the masks that are there; a line that was cut off counts for none."""
        path, found = self.folder / ROWS, {}
        text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        for line in whole.splitlines()[1:]:
            name, *fields = line.split("\t")
            if len(fields) == 4:
                found[name] = Certainty(float(fields[0]), float(fields[1]), "\t".join(fields[2:]))
        content = whole or HEAD
        write_whole(path, lambda draft: draft.write_bytes(content.encode("utf-8", "surrogateescape")))
        return found

    def mask(self, job: PictureJob) -> Path:
        """Return where the mask of a photograph is written."""
        return self.folder / MASKS / job.name.with_name(f"{job.name.name}.png")

    def left(self, jobs: Sequence[PictureJob]) -> list[PictureJob]:
        """Return the photographs without a mask; one that was changed since counts as new."""
        return [job for job in jobs if not self._is_done(job)]

    def _is_done(self, job: PictureJob) -> bool:
        known = self.rows.get(str(job.name))
        return known is not None and self.mask(job).is_file() and known.state == _state(job.source)

    def write(self, job: PictureJob, picture: Raster, found: Confident) -> None:
        """Write a mask as the photograph is stored, which its EXIF tag may turn, and note how certain it is."""
        ids = stored_by(job.source, found.ids)
        if ids.shape != size_of(job.source, pixels=self.pixels):
            raise DataError(f"{job.source}: the photograph was changed while it was read")
        mask: Image.Image = self.values.picture(ids)
        write_whole(self.mask(job), partial(mask.save, format="PNG"))
        known = Certainty(found.certainty, found.share, _state(job.source))
        line = f"{job.name}\t{known.mean:.4f}\t{known.share:.4f}\t{known.state}\n"
        with self.lock, (self.folder / ROWS).open("ab") as file:
            file.write(line.encode("utf-8", "surrogateescape"))
            file.flush()
            self.rows[str(job.name)] = known

    def share(self, jobs: Sequence[PictureJob]) -> float:
        """Return the mean share of the pixels that have a class, over the photographs that have a mask."""
        found = [self.rows[str(job.name)].share for job in jobs if str(job.name) in self.rows]
        return sum(found) / len(found) if found else 0.0

    def finish(self, jobs: Sequence[PictureJob], root: Path) -> Path:
        """Write the list of photographs and masks, relative to `root`, and the class list; return the list's path.

        Raises:
            UserError: if a photograph's name can't stand in a list.
        """
        lines = []
        for job in jobs:
            if str(job.name) not in self.rows:
                continue  # it could not be read
            both = [os.path.relpath(path.absolute(), root) for path in (job.source, self.mask(job))]
            if any(letter in path for path in both for letter in "\t\r\n"):
                raise UserError(f"'{job.source}': a name with a tab or a line break can't stand in a list; rename it")
            lines.append("\t".join(both) + "\n")
        listed, content = self.folder / LIST, "".join(lines)
        write_whole(listed, lambda draft: draft.write_bytes(content.encode("utf-8", "surrogateescape")))
        classes = self.values.class_list()
        write_whole(self.folder / CLASSES, lambda draft: draft.write_text(classes, encoding="utf-8"))
        return listed


def root_of(jobs: Sequence[PictureJob], output: Path, given: str | None) -> Path:
    """Return the folder that holds all photographs and their masks: what paths of the list are relative to.

    Raises:
        ConfigError: if the one that is given does not.
    """
    folders = {str(job.source.absolute().parent) for job in jobs} | {str(output.absolute())}
    if given is None:
        return Path(os.path.commonpath(folders))
    root = Path(given).expanduser().absolute()
    outside = [folder for folder in folders if not Path(os.path.normpath(folder)).is_relative_to(root)]
    if outside:
        raise ConfigError(
            f"root={given}: '{outside[0]}' is not below it; data=folder takes photographs and masks below one folder"
        )
    return root


def _settings_in(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' can't be read ({error}); overwrite=true makes all masks anew") from error
    return found if isinstance(found, dict) else {}


def _state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "gone"
    return f"{state.st_size}\t{state.st_mtime_ns}"
