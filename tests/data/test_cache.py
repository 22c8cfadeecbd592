"""Caches of decoded pictures: they change no bit of a sample, whatever happens to their files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from PIL import Image

from idd_seg.data.augment import Augmentation
from idd_seg.data.camvid import CamVid
from idd_seg.data.folder import Folder
from idd_seg.data.pipeline import shared_memory
from idd_seg.data.pipeline.cache import START, CachedSource
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.files import Pair, PairSource
from idd_seg.data.pipeline.source import Item
from idd_seg.data.shapes import ShapesSource
from idd_seg.errors import ConfigError, DataError
from idd_seg.types import Batch
from tests.data import layouts
from tests.data.layouts import OWN_COLOURS, OWN_VOID, own, photograph, save, values
from tests.data.sources import settings

CACHES = ("none", "disk", "ram")
IGNORED = [0, *range(11, 256)]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A memory file system of its own, so that tests leave the real one alone."""
    root = tmp_path / "shm"
    root.mkdir()
    monkeypatch.setattr(shared_memory, "ROOT", root)
    monkeypatch.delenv(shared_memory.OWNER, raising=False)
    yield root
    os.environ.pop(shared_memory.OWNER, None)


def augmentation() -> Augmentation:
    jitter = albumentations.ColorJitter(brightness=(0.5, 1.5), p=0.8)
    return Augmentation(crop=(10, 12), scale=(0.5, 2.0), flip=0.5, photometric=[jitter], cat_max_ratio=0.5)


def camvid(root: Path, tmp_path: Path, **changes: Any) -> CamVid:
    common = {"augment": augmentation(), "ignored": [11], "cache_dir": str(tmp_path / "decoded"), **changes}
    return CamVid(root=str(root), **settings(11, **common))


def own_rgb(root: Path, tmp_path: Path, **changes: Any) -> Folder:
    patterns = [{s: f"{kind}/{s}/**/*" for s in ("train", "val")} for kind in ("images", "masks")]
    patterns[0]["predict"] = "images/val/**/*"
    common = {
        "augment": augmentation(),
        "cache_dir": str(tmp_path / "decoded"),
        "palette": list(OWN_COLOURS.values()),
        "masks": "rgb",
        "ignored_colours": [OWN_VOID],
        **changes,
    }
    return Folder(str(root), *patterns, **settings(4, **common))


def batches(data: SegmentationDataModule, split: str) -> list[Batch]:
    return list(data.loader(split, shuffle=split == "train"))


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.names == y.names
        and torch.equal(x.image, y.image)
        and torch.equal(x.label, y.label)
        and torch.equal(x.box, y.box)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("build", [camvid, own_rgb])
def test_samples_are_the_same_to_the_bit(build: Callable[..., SegmentationDataModule], tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path) if build is camvid else own(tmp_path, masks="rgb")
    expected = {split: batches(build(root, tmp_path), split) for split in ("train", "val", "predict")}
    assert sum(len(found) for found in expected.values()) >= 6
    for cache in ("disk", "ram"):
        for workers in (0, 2):
            data = build(root, tmp_path, cache=cache, num_workers=workers)
            for split, found in expected.items():
                assert equal(batches(data, split), found), (cache, workers, split, "written")
                assert equal(batches(data, split), found), (cache, workers, split, "read")
        # What the first process wrote is what a new one reads.
        data = build(root, tmp_path, cache=cache)
        data.make_source = lambda split, make=data.make_source: NeverRead(make(split))  # type: ignore[method-assign]
        for split, found in expected.items():
            assert equal(batches(data, split), found), (cache, split, "by a new process")


class NeverRead:
    """A source whose items must not be decoded."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.name, self.key = source.name, source.key

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        raise AssertionError(f"{self.name(index)} is decoded again")


@pytest.mark.parametrize("transform", ["ColorJitter", "GaussianBlur", "ToGray", "InvertImg", "CLAHE", "Posterize"])
def test_transforms_leave_what_is_cached_alone(transform: str, tmp_path: Path) -> None:
    # The whole photograph at its own size reaches the transforms as it lies in the cache.
    augment = Augmentation(photometric=[getattr(albumentations, transform)(p=1)])
    root = layouts.camvid(tmp_path)
    samples = []
    for cache in ("none", "disk", "disk"):
        data = camvid(root, tmp_path, augment=augment, cache=cache)
        samples.append([data.dataset("train")[epoch, i] for epoch in (0, 1) for i in (0, 0, 1)])
    for cached in samples[1:]:
        assert all(
            torch.equal(a.image, b.image) and torch.equal(a.label, b.label)
            for a, b in zip(samples[0], cached, strict=True)
        )


# The source alone


def source_of(tmp_path: Path, kind: str = "values") -> PairSource:
    """Three items: values, colours, or no labels."""
    rng, pairs = np.random.default_rng(5), []
    for i, size in enumerate([(7, 9), (9, 7), (1, 1)]):
        image = save(photograph(rng, size), tmp_path / "files" / f"{i} ü.png")
        label = None
        if kind != "none":
            picture = values(rng, size, range(5)) if kind == "values" else photograph(rng, size)
            label = save(picture, tmp_path / "files" / f"{i} label.png")
        pairs.append(Pair(image, label))
    return PairSource(pairs, "rgb" if kind == "colours" else "indices")


def same(a: Item, b: Item) -> bool:
    labels = (a.label is None) == (b.label is None) and (
        a.label is None or b.label is None or bool((a.label == b.label).all())
    )
    shapes = a.label is None or b.label is None or a.label.shape == b.label.shape
    return (
        a.name == b.name and a.image.shape == b.image.shape and bool((a.image == b.image).all()) and labels and shapes
    )


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


KINDS = ("values", "colours", "none")


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_kept_as_they_are(kind: str, tmp_path: Path) -> None:
    source = source_of(tmp_path, kind)
    for _ in range(2):
        cached = CachedSource(source, tmp_path / "cache")
        assert len(cached) == 3
        for i in (0, 1, 2, 1):
            assert same(cached[i], source[i])
            assert cached[i].image.dtype == np.uint8
            assert (cached.name(i), cached.key(i)) == (source.name(i), source.key(i))
    assert len(files(tmp_path / "cache")) == 3
    quiet = CachedSource(NeverRead(source), tmp_path / "cache")
    assert all(same(quiet[i], source[i]) for i in range(3))


def test_a_cached_item_out_of_range_ends_the_list(tmp_path: Path) -> None:
    cached = CachedSource(ShapesSource(0, "train", 1, (32, 32)), tmp_path)
    assert len(list(zip(range(5), cached, strict=False))) == 1  # a list ends at its IndexError
    with pytest.raises(IndexError):
        cached[1]


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_changed_file_is_decoded_anew(which: str, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    cached = CachedSource(source, tmp_path / "cache")
    before = cached[0]
    path = getattr(source.pairs[0], which)
    changed = 255 - before.image if which == "image" else 4 - before.label
    save(Image.fromarray(changed), path)
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    for reader in (cached, CachedSource(source, tmp_path / "cache")):
        assert np.array_equal(getattr(reader[0], which), changed)
        assert same(reader[1], source[1])


def test_two_ways_to_read_labels_do_not_meet(tmp_path: Path) -> None:
    plain = source_of(tmp_path)
    for pair in plain.pairs:
        assert pair.label is not None
        picture = Image.open(pair.label)
        picture.putpalette(layouts.voc_palette())
        picture.save(pair.label)
    coloured, bare = PairSource(plain.pairs, "palette"), PairSource([Pair(p.image, None) for p in plain.pairs])
    caches = [CachedSource(source, tmp_path / "cache") for source in (plain, coloured, bare)]
    for _ in range(2):
        assert all(same(cached[i], cached.source[i]) for cached in caches for i in range(3))
    assert len(files(tmp_path / "cache")) == 9


def test_a_file_that_has_gone_is_named_as_without_a_cache(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    cached = CachedSource(source, tmp_path / "cache")
    cached[0]
    source.pairs[0].image.unlink()
    with pytest.raises(DataError, match=r"0 ü\.png"):
        cached[0]


# Damage: never wrong pixels


def damage_truncate(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda p: p.write_bytes(b""),
    "a byte": lambda p: p.write_bytes(b"i"),
    "header alone": lambda p: p.write_bytes(p.read_bytes()[:START]),
    "half": lambda p: damage_truncate(p, 0.5),
    "one byte less": lambda p: p.write_bytes(p.read_bytes()[:-1]),
    "one byte more": lambda p: p.write_bytes(p.read_bytes() + b"\0"),
    "zeros of its length": lambda p: p.write_bytes(bytes(len(p.read_bytes()))),
    "zeros behind the header": lambda p: p.write_bytes(p.read_bytes()[:START].ljust(len(p.read_bytes()), b"\0")),
    "another format": lambda p: p.write_bytes(b"idd-seg decoded9" + p.read_bytes()[16:]),
    "a picture": lambda p: Image.new("RGB", (9, 7)).save(p, "PNG"),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a link to itself": lambda p: (p.unlink(), p.symlink_to(p)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_decoded_anew(kind: str, damage: str, tmp_path: Path) -> None:
    source = source_of(tmp_path, kind)
    first = CachedSource(source, tmp_path / "cache")
    for i in range(3):
        first[i]
    DAMAGES[damage](first.path(0))
    second = CachedSource(source, tmp_path / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("error" if damage not in ("a folder",) else "ignore")
        for _ in range(2):
            assert all(same(second[i], source[i]) for i in range(3))
    if damage != "a folder":  # it is mended
        assert all(same(CachedSource(NeverRead(source), tmp_path / "cache")[i], source[i]) for i in range(3))


@pytest.mark.parametrize(
    "kind",
    [
        "values",
        "colours",
        "none",
    ],
)
def test_no_single_flipped_bit_changes_an_item(kind: str, tmp_path: Path) -> None:
    source = source_of(tmp_path, kind)
    path = CachedSource(source, tmp_path / "cache").path(0)
    CachedSource(source, tmp_path / "cache")[0]
    good, expected = path.read_bytes(), source[0]
    for place in (*range(8 * START), *range(8 * START, 8 * len(good), 23)):
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        path.write_bytes(bad)
        assert same(CachedSource(source, tmp_path / "cache")[0], expected), place


def test_the_file_of_another_item_is_not_taken(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    cached = CachedSource(source, tmp_path / "cache")
    for i in range(2):
        cached[i]
    shutil.copy(cached.path(1), cached.path(0))
    assert same(CachedSource(source, tmp_path / "cache")[0], source[0])


# Writing that fails


class KilledError(BaseException):
    """As if the process ended here."""


def test_a_kill_before_the_file_is_in_place_leaves_nothing_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            CachedSource(source, tmp_path / "cache")[0]
    left = files(tmp_path / "cache")
    assert CachedSource(source, tmp_path / "cache").path(0) not in left
    for path in left:
        damage_truncate(path, 0.5)
    again = CachedSource(source, tmp_path / "cache")
    assert same(again[0], source[0])
    assert again.path(0).is_file()


def test_a_kill_at_any_byte_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    CachedSource(source, tmp_path / "whole")[0]
    whole = CachedSource(source, tmp_path / "whole").path(0)
    content = whole.read_bytes()
    for length in (0, 1, START - 1, START, START + 7 * 9 * 3, len(content) - 1, len(content)):
        cached = CachedSource(source, tmp_path / f"cache {length}")
        path = cached.path(0)
        path.parent.mkdir(parents=True)
        # This process's own draft, and that of another one.
        for process in (os.getpid(), 1):
            path.with_name(f"{path.name}.{process}").write_bytes(content[:length])
        assert same(cached[0], source[0])
        assert path.read_bytes() == content


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync", "replace", "mkdir"])
def test_where_nothing_can_be_written_the_run_goes_on_after_one_warning(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tmp_path)
    tries = []

    def fail(*args: Any, **kwargs: Any) -> Any:
        tries.append(call)
        raise OSError(code, os.strerror(code))

    if call == "write":
        plain = Path.open
        monkeypatch.setattr(Path, "open", lambda self, mode="r": FullFile(fail) if "w" in mode else plain(self, mode))
    elif call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, call, fail)
    cached = CachedSource(source, tmp_path / "cache")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            assert all(same(cached[i], source[i]) for i in range(3))
    assert len(told) == len(tries) == 1
    message = str(told[0].message)
    assert str(tmp_path / "cache") in message
    assert ("is full" in message) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert not files(tmp_path / "cache")


class FullFile(contextlib.AbstractContextManager["FullFile"]):
    """A file that takes no byte."""

    def __init__(self, fail: Callable[..., Any]) -> None:
        self.write = self.writelines = fail

    def __exit__(self, *error: object) -> None:
        return None


def test_what_was_cached_before_the_disk_was_full_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tmp_path)
    cached = CachedSource(source, tmp_path / "cache")
    cached[0]

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="is full"):
        cached[1]
    cached.source = NeverRead(source)  # type: ignore[assignment]
    assert same(cached[0], source[0])


def test_a_picture_that_cannot_be_decoded_is_not_cached(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    source.pairs[0].image.write_bytes(b"no picture")
    cached = CachedSource(source, tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(DataError, match="no picture; PNG"):
            cached[0]
    assert not files(tmp_path / "cache")


@pytest.mark.parametrize(("free", "warned"), [(10**3, True), (10**12, False)])
def test_a_disk_that_is_too_small_is_told_beforehand(
    free: int, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free) if Path(path).is_dir() else None)
    data = camvid(layouts.camvid(tmp_path), tmp_path, cache="disk", cache_dir=str(tmp_path / "not" / "there" / "yet"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data.setup("fit")
    assert [str(w.message) for w in told if "free" in str(w.message)] != [] if warned else not told
    assert all("4 decoded pictures" in str(w.message) or "3 decoded pictures" in str(w.message) for w in told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache": "disc"}, "data.cache must be one of none, ram, disk, got 'disc'"),
        ({"cache": "disk", "cache_dir": None}, "data.cache=disk needs a folder: data.cache_dir=PATH"),
    ],
)
def test_an_unknown_cache_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        camvid(tmp_path, tmp_path, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("cache", CACHES)
def test_the_yaml_takes_each_cache(cache: str, tmp_path: Path, memory: Path) -> None:
    root = layouts.camvid(tmp_path)
    data = layouts.make_data(
        "camvid", root, f"data.cache={cache}", f'cache_dir="{tmp_path}/teachers"', "data.augment=null"
    )
    plain = camvid(root, tmp_path, augment=None)
    assert all(torch.equal(data.dataset("val")[0, i].image, plain.dataset("val")[0, i].image) for i in range(3))
    kept = {"none": None, "disk": tmp_path / "teachers" / "decoded", "ram": memory}[cache]
    assert kept is None or len(files(kept)) == 3


# The folder in memory


def test_there_must_be_a_memory_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "ROOT", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"data\.cache=ram needs .*data\.cache=disk"):
        camvid(layouts.camvid(tmp_path), tmp_path, cache="ram").setup("fit")


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_folders_of_processes_that_have_ended_are_removed_and_no_others(memory: Path) -> None:
    gone, alive = memory / f"{shared_memory.PREFIX}{ended_process()}", memory / f"{shared_memory.PREFIX}{os.getppid()}"
    others = [
        memory / name
        for name in (f"{shared_memory.PREFIX}x", "idd_seg_0", "something", f"other_{shared_memory.PREFIX}1")
    ]
    for folder in (gone, alive, *others):
        (folder / "ab").mkdir(parents=True)
        (folder / "ab" / "file").write_text("x")
    mine = shared_memory.shared_folder()
    assert mine == memory / f"{shared_memory.PREFIX}{os.getpid()}"
    assert mine.stat().st_mode & 0o077 == 0  # pictures may be private
    assert not gone.exists()
    assert all((folder / "ab" / "file").is_file() for folder in (alive, *others))


def test_all_parts_of_a_run_share_a_folder(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shared_memory.shared_folder()
    assert shared_memory.shared_folder() == first
    assert os.environ[shared_memory.OWNER] == str(os.getpid())
    # A process that this one starts inherits the owner.
    monkeypatch.setenv(shared_memory.OWNER, str(os.getppid()))
    assert shared_memory.shared_folder() == memory / f"{shared_memory.PREFIX}{os.getppid()}"


@pytest.mark.parametrize("value", ["", "abc", "-1", "ended"])
def test_an_owner_that_is_none_is_replaced(value: str, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shared_memory.OWNER, str(ended_process()) if value == "ended" else value)
    assert shared_memory.shared_folder() == memory / f"{shared_memory.PREFIX}{os.getpid()}"


@pytest.mark.parametrize("number", ["9" * 30, "²"])
def test_a_foreign_folder_with_an_odd_number_is_left_alone(number: str, memory: Path) -> None:
    (memory / f"{shared_memory.PREFIX}{number}").mkdir()
    assert shared_memory.shared_folder().is_dir()


SCRIPT = """
import os, sys
from pathlib import Path
from idd_seg.data.pipeline import shared_memory
shared_memory.ROOT = Path(sys.argv[1])
folder = shared_memory.shared_folder()
(folder / "ab").mkdir()
(folder / "ab" / "file").write_text("x")
if os.fork() == 0:
    sys.exit(0)  # a worker that ends leaves the folder
os.wait()
assert (folder / "ab" / "file").is_file()
print(folder)
if len(sys.argv) > 2:
    sys.exit(sys.argv[2])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
@pytest.mark.usefixtures("memory")
def test_the_folder_goes_with_the_process_and_not_with_its_workers(memory: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(memory), "an error ends it"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert result.stdout.strip().startswith(str(memory / shared_memory.PREFIX)), result.stderr
    assert result.stderr.strip() == "an error ends it"
    assert list(memory.iterdir()) == []


@pytest.fixture(autouse=True)
def nothing_is_left_in_the_real_memory() -> Iterator[None]:
    def own_folders() -> set[Path]:
        return (
            set(Path("/dev/shm").glob(f"{shared_memory.PREFIX}{os.getpid()}")) if Path("/dev/shm").is_dir() else set()
        )

    before = own_folders()
    yield
    assert own_folders() == before
