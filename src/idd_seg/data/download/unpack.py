"""Unpacking archives of strangers: nothing leads out of the folder, and half an archive is never taken for a whole."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from idd_seg.data.download.archive_members import Entry, damage_named, opened
from idd_seg.data.download.transfer import CHUNK, FULL, Bar, byte_bar, no_room, require_space
from idd_seg.errors import DataError

SMALL = 64 << 20  # bytes that any archive may unpack to


def unpack(
    archive: Path,
    folder: Path,
    *,
    checksum: str,
    strip: int = 0,
    members: Sequence[str] = ("*",),
    bar: Bar = byte_bar,
    max_files: int = 1_000_000,
    max_ratio: float = 20.0,
) -> int:
    """Unpack a zip, tar or tgz archive into a folder, and return the number of files.

    The files go into a hidden folder beside their places; when all are there and right they are moved, whole folders
    at once where nothing is in the way, and a hidden mark with the checksum is left last. Files of the same name are
    replaced.

    Args:
        folder: is made if it is missing.
        checksum: of the archive, for the mark.
        strip: leading folders of the names in the archive that are left out.
        members: patterns of the names to unpack; `*` stands for anything, `/` too.
        max_files, max_ratio: bounds on the number of files, and on their bytes relative to the archive's.

    Raises:
        DataError: for a damaged archive, a name that leads out of the folder, a link or device, more than the bounds,
            or a full disk.
    """
    draft = _draft(archive.name, folder)
    try:
        size = archive.stat().st_size
        folder.mkdir(parents=True, exist_ok=True)
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.mkdir()
        try:
            with opened(archive) as (entries, needed), bar(f"unpacking {archive.name}", size) as advance:
                require_space(folder, needed, f"the files of {archive.name}")
                bounded = _bounded(entries, archive, max_files, max(SMALL, int(max_ratio * size)))
                for entry, place in _chosen(bounded, archive, strip, members):
                    _write(entry, draft / place, archive)
                    advance(entry.position)
            files = _count(draft)
            if not files:
                raise DataError(f"{archive}: the archive holds nothing of {', '.join(members)}")
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _merge(draft, folder)
        _leave_mark(archive.name, folder, {"size": size, "checksum": checksum, "files": files})
        shutil.rmtree(draft)
    except FileNotFoundError as error:
        raise DataError(f"there is no '{error.filename}'") from error
    except OSError as error:
        if error.errno in FULL:
            raise DataError(no_room(folder, f"the files of {archive.name}", "more bytes are needed")) from error
        raise DataError(f"{archive}: can't be unpacked into '{folder}' ({error})") from error
    return sum(files.values())


def is_unpacked(name: str, folder: Path, checksum: str | None = None) -> bool:
    """Tell whether `unpack` has put the archive of this name into the folder, and no file has gone since.

    Args:
        checksum: of the archive, if it is known: another one has not been unpacked.
    """
    try:
        mark = json.loads(_mark(name, folder).read_text(encoding="utf-8"))
        if checksum not in (mark["checksum"], None) or is_interrupted(name, folder):
            return False
        return all(_files_in(folder / below) >= number for below, number in mark["files"].items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def is_interrupted(name: str, folder: Path) -> bool:
    """Tell whether `unpack` has begun with the archive of this name and not come to its end."""
    return _draft(name, folder).exists()


def _draft(name: str, folder: Path) -> Path:
    return folder / f".{name}.unpacking"


def _mark(name: str, folder: Path) -> Path:
    return folder / f".{name}.unpacked"


def _leave_mark(name: str, folder: Path, content: dict[str, Any]) -> None:
    if hasattr(os, "sync"):
        os.sync()  # the mark must not outlive the files in a power cut
    path = _mark(name, folder)
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    beside.replace(path)


def _files_in(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(not entry.is_dir() for entry in entries)


def _count(draft: Path) -> dict[str, int]:
    """Return the number of files of each folder that has some."""
    return {
        Path(place).relative_to(draft).as_posix(): len(files) for place, _, files in sorted(os.walk(draft)) if files
    }


def _merge(draft: Path, folder: Path) -> None:
    for source in sorted(draft.iterdir()):
        target = folder / source.name
        if source.is_dir() and target.is_dir():
            _merge(source, target)
        else:
            shutil.move(str(source), str(target))


def _write(entry: Entry, target: Path, archive: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with damage_named(archive), entry.open() as content, target.open("wb") as file:
        shutil.copyfileobj(content, file, CHUNK)
        if file.tell() != entry.size:
            raise EOFError(f"'{entry.name}' has {file.tell()} of {entry.size} bytes")


def _bounded(entries: Iterator[Entry], archive: Path, max_files: int, max_bytes: int) -> Iterator[Entry]:
    files = size = 0
    with damage_named(archive):
        for entry in entries:
            files, size = files + 1, size + entry.size
            if files > max_files or size > max_bytes:
                raise DataError(
                    f"{archive}: the archive unpacks to more than {max_files} files or {max_bytes} bytes, which is far "
                    "beyond its size; it is refused"
                )
            yield entry


def _chosen(
    entries: Iterator[Entry], archive: Path, strip: int, members: Sequence[str]
) -> Iterator[tuple[Entry, Path]]:
    """Yield the entries that are asked for, with their places below the folder."""
    for entry in entries:
        parts = _parts(entry.name, archive)
        # What macOS adds is called like pictures and is none; and no archive may bring a mark.
        junk = "__MACOSX" in parts or any(part.startswith(".") for part in parts)
        if parts[strip:] and not junk and any(fnmatch.fnmatchcase("/".join(parts), pattern) for pattern in members):
            yield entry, Path(*parts[strip:])


def _parts(name: str, archive: Path) -> list[str]:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in parts or "\0" in name
    if outside or not parts:
        raise DataError(f"{archive}: '{name}' leads out of the folder; the archive is refused")
    return parts
