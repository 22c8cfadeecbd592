"""The files of onnxruntime-web, by which a browser runs ONNX: from npm, or from a folder that is there."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from idd_seg.errors import ConfigError, UserError, first_line

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SCRIPT, PROGRAM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# SHA-256 of the files of this version, in the folder `dist` of the package.
FILES = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    PROGRAM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
NPM = "npm"
MOST_SECONDS = 600.0  # of the download: 33 MB
HOW = f"or give the folder of the npm package {PACKAGE}: web.runtime=FOLDER"


@dataclass(frozen=True)
class Runtime:
    """Where the files `FILES` lie, and of which version they are."""

    folder: Path
    version: str


def runtime_of(source: object, cache: Path) -> Runtime:
    """Return the runtime that `web.runtime` names.

    Args:
        source: `npm`, or the folder of the npm package.
        cache: folder in which what npm has fetched is kept.

    Raises:
        ConfigError: if the folder is none of the package.
        UserError: if npm is missing or could not fetch it.
    """
    if source == NPM:
        return _from_npm(cache / f"{PACKAGE}-{VERSION}")
    if not isinstance(source, str) or not source:
        raise ConfigError(f"web.runtime must be {NPM} or a folder, got '{source}'")
    return _from_folder(Path(source).expanduser())


def _from_folder(folder: Path) -> Runtime:
    where = f"web.runtime={folder}"
    try:
        about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        name, version = str(about["name"]), str(about["version"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{where}: no folder of an npm package ({type(error).__name__} at its package.json); after "
            f"`npm install {PACKAGE}@{VERSION}` it is node_modules/{PACKAGE}"
        ) from error
    if name != PACKAGE:
        raise ConfigError(f"{where}: its package.json says '{name}'; the npm package {PACKAGE} is needed")
    missing = [file for file in FILES if not (folder / "dist" / file).is_file()]
    if missing:
        raise ConfigError(
            f"{where}: dist/ of {PACKAGE} {version} has no {', '.join(missing)}; {VERSION} has, "
            f"by `npm install {PACKAGE}@{VERSION}`"
        )
    if version == VERSION and (changed := _changed(folder / "dist")):
        raise ConfigError(f"{where}: {', '.join(changed)} is not as {PACKAGE} {VERSION} was published; install it anew")
    return Runtime(folder / "dist", version)


def _from_npm(kept: Path) -> Runtime:
    """Return the files as published, fetched once; what is kept in the cache is verified each time."""
    if not _changed(kept):
        return Runtime(kept, VERSION)
    npm = shutil.which(NPM)
    if npm is None:
        raise UserError(
            f"formats=[web] needs the files of {PACKAGE}, and there is no npm to fetch them; install Node.js, {HOW}"
        )
    print(f"fetching {PACKAGE} {VERSION} by npm ...", flush=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".npm-") as folder:
        draft = Path(folder) / "files"
        draft.mkdir()
        _unpack(_packed(npm, Path(folder)), draft)
        if changed := _changed(draft):
            raise UserError(f"{PACKAGE} {VERSION} from npm is not as published: {', '.join(changed)} differs; {HOW}")
        # Another process may have put the same files there in the meantime.
        shutil.rmtree(kept, ignore_errors=True)
        draft.replace(kept)
    return Runtime(kept, VERSION)


def _packed(npm: str, folder: Path) -> Path:
    """Let npm fetch the package's archive, whose integrity it verifies itself."""
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(folder), "--loglevel=error"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, cwd=folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"npm could not fetch {PACKAGE} {VERSION}: {first_line(error)}; try again, {HOW}") from error
    found = sorted(folder.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = said[0][:200] if said else f"exit code {done.returncode}"
        raise UserError(f"npm could not fetch {PACKAGE} {VERSION}: {why}; is its registry reached? Else {HOW[3:]}")
    return found[0]


def _unpack(archive: Path, folder: Path) -> None:
    """Write the files that are needed, and no other; paths in the archive decide nothing."""
    with tarfile.open(archive) as packed:
        for name in FILES:
            member = packed.extractfile(f"package/dist/{name}")
            if member is not None:
                (folder / name).write_bytes(member.read())


def _changed(folder: Path) -> list[str]:
    """Return the names of files that are missing, or not as published."""
    return [name for name, expected in FILES.items() if _hash(folder / name) != expected]


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
