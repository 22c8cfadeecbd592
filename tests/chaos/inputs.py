"""Damaged inputs: each is read as what was written, or refused by one message; never anything else."""

from __future__ import annotations

import json
import random
import shutil
import signal
import tarfile
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

from idd_seg.checkpoints.reader import latest_whole, previous_of, read_checkpoint
from idd_seg.data.download.unpack import unpack
from idd_seg.data.folder import Folder
from idd_seg.data.pipeline.cache import CachedSource
from idd_seg.data.pipeline.class_list import ClassList, read_class_list
from idd_seg.data.pipeline.decode import read_image
from idd_seg.data.pipeline.decode_label import read_label
from idd_seg.data.pipeline.files import Pair, PairSource
from idd_seg.distillation.teacher_cache import _Records
from idd_seg.errors import UserError
from idd_seg.runs.lock import _look
from tests.chaos import mutations
from tests.chaos.outcome import Outcome

LIMIT = 20.0  # seconds for a single input


@dataclass(frozen=True)
class Subject:
    """A file that is damaged, and what must still be true.

    Attributes:
        path: the file.
        read: reads it as the program does; raises a UserError for what it can't use.
        right: judges what was read: true for what is right.
        ways: how it is damaged.
        always: whether it must be read in spite of any damage, because what it holds can be made anew.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    right: Callable[[Any], bool]
    ways: Sequence[Callable[[bytes, random.Random], bytes]] = mutations.ALL
    always: bool = False


class TooLongError(Exception):
    """An input that takes longer than `LIMIT`."""


@contextmanager
def limited(seconds: float = LIMIT) -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutate(subject: Subject, number: int, seed: int) -> Iterator[Outcome]:
    """Damage a file `number` times, and see what comes of it; the file is put back each time."""
    good = subject.path.read_bytes()
    for index in range(number):
        rng = random.Random(f"{seed}/{subject.name}/{index}")
        way = subject.ways[index % len(subject.ways)]
        subject.path.write_bytes(way(good, rng))
        yield _judged(subject, f"{way.__name__} {index}")
    subject.path.write_bytes(good)


def _judged(subject: Subject, case: str) -> Outcome:
    outcome = Outcome(subject.name, case)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with limited():
                found = subject.read()
            outcome.noticed = bool(told)
            if not subject.right(found):
                outcome.bad, outcome.note = "wrong", repr(found)[:500]
        except TooLongError:
            outcome.bad = "hang"
        except UserError as error:
            outcome.noticed, outcome.note = True, str(error)[:500]
            if subject.always or not str(error).strip():
                outcome.bad = "unexplained"
        except Exception:
            outcome.bad, outcome.note = "unexplained", traceback.format_exc()[-2000:]
    return outcome


# What is damaged


def subjects(folder: Path) -> list[Subject]:
    """Write one of each kind."""
    makers = (_photographs, _labels, _folder, _class_list, _checkpoints, _run_folder, _caches, _archives)
    return [subject for make in makers for subject in make(folder)]


def _picture(seed: int = 0) -> np.ndarray[Any, Any]:
    smooth = np.kron(np.random.default_rng(seed).integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1)))
    return (smooth + np.random.default_rng(seed + 1).integers(0, 9, smooth.shape)).clip(0, 255).astype(np.uint8)


def _photographs(folder: Path) -> Iterator[Subject]:
    picture, png, jpeg = _picture(), folder / "photo.png", folder / "photo.jpg"
    Image.fromarray(picture).save(png)
    Image.fromarray(picture).save(jpeg, quality=95)

    def same_size(found: Any) -> bool:
        # A JPEG has no checksum: what its bits say is what it shows.
        return found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3

    yield Subject("photographs, PNG", png, lambda: read_image(png), lambda found: np.array_equal(found, picture))
    yield Subject("photographs, JPEG", jpeg, lambda: read_image(jpeg), same_size)


def _labels(folder: Path) -> Iterator[Subject]:
    label = np.random.default_rng(2).integers(0, 5, (48, 64)).astype(np.uint8)
    grey, palette = folder / "grey.png", folder / "palette.png"
    Image.fromarray(label).save(grey)
    coloured = Image.fromarray(label, "P")
    coloured.putpalette([v for i in range(8) for v in (i * 30, 255 - i * 30, i * 7)])
    coloured.save(palette)
    colours = np.asarray(coloured.convert("RGB"))
    yield Subject("labels, grey", grey, lambda: read_label(grey), lambda found: np.array_equal(found, label))
    yield Subject("labels, indices", palette, lambda: read_label(palette), lambda found: np.array_equal(found, label))
    yield Subject(
        "labels, colours", palette, lambda: read_label(palette, "rgb"), lambda found: np.array_equal(found, colours)
    )


def _folder(folder: Path) -> Iterator[Subject]:
    root = folder / "mine"
    names = [f"{side}/{i}.png" for i in range(4) for side in ("images", "masks")]
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_picture(i) if "images" in name else _picture(i)[..., 0] % 3).save(root / name)
    listed = root / "train.txt"
    listed.write_text("".join(f"images/{i}.png\tmasks/{i}.png\n" for i in range(4)), encoding="utf-8")

    def pairs() -> Any:
        data = Folder(
            str(root),
            {"train": "train.txt"},
            {},
            **{"name": "folder", "num_classes": 3, "class_names": list("abc"), "palette": [[i] * 3 for i in range(3)]},
            mean=[0.5] * 3,
            std=[0.2] * 3,
        )
        return data.make_source("train").pairs

    def within(found: Any) -> bool:
        # A name may be lost, or lead to another file of the data set; it never leads out of it.
        places = [path.resolve() for pair in found for path in pair if path is not None]
        return bool(found) and all(path.is_file() and path.is_relative_to(root.resolve()) for path in places)

    yield Subject("list files", listed, pairs, within)
    swapped = root / "masks" / "0.png"
    source = PairSource([Pair(root / "images" / "0.png", swapped)])
    good = np.asarray(Image.open(swapped)).copy()

    def swap(content: bytes, rng: random.Random) -> bytes:
        return (root / rng.choice(names)).read_bytes()

    def a_mask(found: Any) -> bool:
        # Another mask of the same size can't be told from the right one.
        return found.label.shape == good.shape and found.label.max() < 3

    yield Subject("labels, another file", swapped, lambda: source[0], a_mask, (swap,))


def _class_list(folder: Path) -> Iterator[Subject]:
    path = folder / "classes.yaml"
    entries = "\n".join(
        f"  - {{name: class {i}, colour: [{i}, {2 * i}, 7], values: [{i}, {i + 20}]}}" for i in range(5)
    )
    path.write_text(f"classes:\n{entries}\nignore: [255, 99]\n", encoding="utf-8")

    def valid(found: ClassList) -> bool:
        ids = set(found.label_values.values())
        return 2 <= found.count == len(found.palette) and ids <= set(range(found.count)) and len(set(found.names)) > 1

    yield Subject("class lists", path, lambda: read_class_list(path), valid)


def _checkpoints(folder: Path) -> Iterator[Subject]:
    path = folder / "last.ckpt"
    content = {"idd_seg": {"format": 1, "class_names": ["a", "b"]}, "global_step": 7}
    weights = {f"student.{i}": torch.randn(5, 7, generator=torch.Generator().manual_seed(i)) for i in range(4)}
    torch.save({**content, "state_dict": weights}, path)

    def same(found: Any) -> bool:
        read = found.weights
        return read.keys() == weights.keys() and all(torch.equal(read[name], weights[name]) for name in weights)

    yield Subject("checkpoints", path, lambda: read_checkpoint(path), same)
    second = folder / "run" / "last.ckpt"
    second.parent.mkdir()
    shutil.copy(path, second)
    shutil.copy(path, previous_of(second))
    yield Subject("checkpoints, with the one before", second, lambda: latest_whole(second), same, always=True)


def _run_folder(folder: Path) -> Iterator[Subject]:
    run = folder / "stopped"
    (run / "checkpoints").mkdir(parents=True)
    cfg = OmegaConf.create({"run_dir": str(run), "resume": "auto", "seed": 3, "loss": {"ce": {"weight": 0.5}}})
    OmegaConf.save(cfg, run / "config.yaml")

    def go_on() -> Any:
        # Taken for the same run, or refused: another seed must not go unseen.
        return _look(cfg, run, None), OmegaConf.load(run / "config.yaml")

    def same(found: Any) -> bool:
        return bool(found[0] is None and found[1].seed == 3 and found[1].loss == cfg.loss)

    yield Subject("configurations of run folders", run / "config.yaml", go_on, same)
    done = folder / "done"
    shutil.copytree(run, done)
    (done / "metrics.json").write_text(json.dumps({"best": {"miou": 0.5, "step": 3}}), encoding="utf-8")

    def plausible(found: Any) -> bool:
        return found is None or isinstance(found, float)

    yield Subject("results of run folders", done / "metrics.json", lambda: _look(cfg, done, None), plausible)


def _caches(folder: Path) -> Iterator[Subject]:
    image, mask = folder / "kept.png", folder / "kept_mask.png"
    Image.fromarray(_picture()).save(image)
    Image.fromarray(_picture()[..., 0] % 3).save(mask)
    plain = PairSource([Pair(image, mask)])
    expected = plain[0]
    CachedSource(plain, folder / "cache")[0]

    def cached() -> Any:
        return CachedSource(plain, folder / "cache")[0]

    def same(found: Any) -> bool:
        return np.array_equal(found.image, expected.image) and np.array_equal(found.label, expected.label)

    path = CachedSource(plain, folder / "cache").path(0)
    yield Subject("caches of pictures", path, cached, same, always=True)
    yield from _teacher_cache(folder / "teachers")


def _teacher_cache(folder: Path) -> Iterator[Subject]:
    layout = [((3, 4, 4), "float16")]
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).half()
    _Records(folder, layout, 2).write([0, 1], [logits])

    def records() -> Any:
        return _Records(folder, layout, 2).read([0, 1])

    def same(found: Any) -> bool:
        return found is None or torch.equal(found[0], logits)

    for name in ("values.half", "checks.u64"):
        ways = (mutations.flip, mutations.flip_head, mutations.cut, mutations.zeros, mutations.noise)
        yield Subject(f"caches of teachers, {name}", folder / name, records, same, ways, always=True)


def _archives(folder: Path) -> Iterator[Subject]:
    inside = folder / "inside"
    inside.mkdir()
    contents = {f"{i}.txt": random.Random(i).randbytes(700) for i in range(3)}
    for name, content in contents.items():
        (inside / name).write_bytes(content)
    for suffix in ("zip", "tgz"):
        path = folder / f"data.{suffix}"
        if suffix == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for name in contents:
                    packed.write(inside / name, name)
        else:
            with tarfile.open(path, "w:gz") as tar:
                for name in contents:
                    tar.add(inside / name, name)
        yield Subject(f"archives, {suffix}", path, *_unpacking(path, folder / f"out-{suffix}", contents))


def _unpacking(path: Path, target: Path, contents: dict[str, bytes]) -> tuple[Callable[[], Any], Callable[[Any], bool]]:
    @contextmanager
    def silent(title: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda position: None

    def read() -> Any:
        shutil.rmtree(target, ignore_errors=True)
        unpack(path, target, checksum="none", bar=silent)
        return {file.name: file.read_bytes() for file in target.rglob("*") if file.is_file() and file.name[0] != "."}

    def right(found: Any) -> bool:
        # The name of a file is protected by no checksum of a zip; its content is.
        return bool(found) and set(found.values()) <= set(contents.values())

    return read, right
