"""Getting a data set: archives are downloaded or found, verified, unpacked once, and converted where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from idd_seg.data.download.resume import fetch
from idd_seg.data.download.transfer import Bar, byte_bar, digest, parse_checksum, verify
from idd_seg.data.download.unpack import is_interrupted, is_unpacked, unpack
from idd_seg.errors import ConfigError, DataError

Say = Callable[[str], None]


class Step(Protocol):
    """What is done with the files of an archive when they are unpacked."""

    def done(self, root: Path) -> bool:
        """Tell whether nothing is left to do, so that the archive is not needed."""
        ...

    def __call__(self, root: Path, say: Say) -> None: ...


@dataclass(frozen=True)
class Archive:
    """An archive of a data set.

    Attributes:
        file: its name.
        urls: where it is, the first choice first; none if the owner gives it to registered users alone.
        size: its bytes, and
        checksum: `md5:HEX`, `sha1:HEX` or `sha256:HEX`, where they are known for certain.
        folder: below the data set's root, where it is unpacked.
        strip: leading folders in the archive that are left out.
        members: patterns of the files to unpack.
        makes: folders and files below the root that it leaves; where they are, it has been unpacked by hand.
        wanted: whether it is part of what is prepared.
        then: what is done with the files.
    """

    file: str
    urls: Sequence[str] = ()
    size: int | None = None
    checksum: str | None = None
    folder: str = "."
    strip: int = 0
    members: Sequence[str] = ("*",)
    makes: Sequence[str] = ()
    wanted: bool = True
    then: Step | None = None

    def __post_init__(self) -> None:
        for what, path in [("file", self.file), ("folder", self.folder), *[("makes", path) for path in self.makes]]:
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise ConfigError(f"download: {what} must lie below the data set's folder, got '{path}'")
        if Path(self.file).name != self.file:
            raise ConfigError(f"download: file must be a name, got '{self.file}'")
        if self.checksum is not None:
            parse_checksum(self.checksum)

    def is_there(self, root: Path) -> bool:
        """Tell whether its files are in place, unpacked by `obtain` or by hand."""
        if self.then is not None and self.then.done(root):
            return True  # what is made of them is, and they are no longer needed
        folder = root / self.folder
        by_hand = bool(self.makes) and all(_holds_something(root / path) for path in self.makes)
        return is_unpacked(self.file, folder, self.checksum) or (by_hand and not is_interrupted(self.file, folder))

    def find(self, folders: Sequence[Path]) -> Path | None:
        """Return where the archive lies, if it does."""
        return next((folder / self.file for folder in folders if (folder / self.file).is_file()), None)


@dataclass(frozen=True)
class DownloadPlan:
    """How a data set is obtained.

    Attributes:
        name: of the data set.
        terms: the owner's terms of use, in a line.
        archives: by short names, in the order in which they are unpacked.
        instructions: where archives without an address come from; `{folder}` stands for where to put them.
    """

    name: str
    terms: str
    archives: Mapping[str, Archive]
    instructions: str = ""


def obtain(plan: DownloadPlan, root: Path, archives: Path, *, say: Say = print, bar: Bar = byte_bar) -> None:
    """Put a data set's files into its folder; what is there already is not asked for again.

    Archives are looked for in `archives` and in `root`, so that one may be downloaded by hand.

    Args:
        root: folder of the data set; made if it is missing.
        archives: where archives are kept; made if it is missing.
        say: told what is going on, a line at a time.

    Raises:
        DataError: that names the archive, and says what to do.
    """
    say(f"{plan.name}: {plan.terms}")
    wanted = [archive for archive in plan.archives.values() if archive.wanted]
    try:
        root.mkdir(parents=True, exist_ok=True)
        archives.mkdir(parents=True, exist_ok=True)
        with FileLock(archives / f".{plan.name}.lock", timeout=0):
            missing = [archive for archive in wanted if not archive.is_there(root)]
            _require_sources(plan, missing, [archives, root])
            for archive in wanted:
                if archive in missing:
                    _obtain(archive, root, archives, say, bar)
                else:
                    say(f"{archive.file}: its files are in '{root / archive.folder}' already")
            for archive in wanted:
                if archive.then is not None and not archive.then.done(root):
                    archive.then(root, say)
    except Timeout as error:
        raise DataError(f"another process prepares {plan.name} in '{archives}'; wait until it has ended") from error
    except OSError as error:
        raise DataError(f"'{root}' can't be filled ({error})") from error


def _require_sources(plan: DownloadPlan, missing: Sequence[Archive], folders: Sequence[Path]) -> None:
    absent = [archive.file for archive in missing if not archive.urls and archive.find(folders) is None]
    if absent:
        how = plan.instructions.replace("{folder}", f"'{folders[0]}'")
        raise DataError(f"{plan.name}: {' and '.join(absent)} can't be downloaded without an account. {how.strip()}")


def _obtain(archive: Archive, root: Path, archives: Path, say: Say, bar: Bar) -> None:
    found = archive.find([archives, root])
    if found is None:
        found = archives / archive.file
        _fetch(archive, found, say, bar)
    else:
        try:
            verify(found, archive.size, archive.checksum, bar)
        except DataError as error:
            raise DataError(f"{error}; remove it, and get it again") from error
    checksum = archive.checksum or digest(found, bar=bar)
    if archive.checksum is None:
        say(f"{archive.file}: {checksum}; its owner publishes no checksum to compare")
    files = unpack(
        found, root / archive.folder, checksum=checksum, strip=archive.strip, members=archive.members, bar=bar
    )
    say(f"{archive.file}: {files} files unpacked into '{root / archive.folder}'; the archive is no longer needed")


def _fetch(archive: Archive, target: Path, say: Say, bar: Bar) -> None:
    for i, url in enumerate(archive.urls):
        say(f"{archive.file}: downloading {url}")
        try:
            fetch(url, target, size=archive.size, checksum=archive.checksum, bar=bar)
            return
        except DataError as error:
            if i + 1 == len(archive.urls):
                raise
            say(f"{error}. Trying another address")


def _holds_something(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))
