"""Reading, showing and writing at the same time: all is done once, within the memory, and the network does not wait."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idd_seg.errors import DataError, UserError
from idd_seg.prediction.inputs import PictureJob
from idd_seg.prediction.pipeline import Pipeline, shown
from idd_seg.prediction.results import write_whole

JOBS = [PictureJob(Path(f"{i}.png"), Path(str(i))) for i in range(30)]


def number(path: Path) -> int:
    return int(path.stem)


def picture(path: Path) -> Any:
    time.sleep(0.002)
    size = 4 + number(path) % 3  # three sizes
    return np.full((size, 5, 3), number(path), np.uint8)


class Written(dict[str, int]):
    def __call__(self, job: PictureJob, picture: Any, ids: Any) -> None:
        time.sleep(0.002)
        assert str(job.name) not in self
        self[str(job.name)] = int(ids)


def show(pictures: Sequence[Any]) -> Sequence[Any]:
    assert len({p.shape for p in pictures}) == 1
    return [int(p[0, 0, 0]) for p in pictures]


def make(write: Callable[..., None], read: Any = picture, network: Any = show, **options: Any) -> Pipeline:
    return Pipeline(lambda path: (4 + number(path) % 3, 5), read, network, write, **options)


@pytest.mark.parametrize(("batch", "budget"), [(1, 10**9), (4, 10**9), (4, 60), (8, 1)])
def test_every_picture_is_written_once_with_its_own_ids(batch: int, budget: int) -> None:
    written, steps = Written(), []
    tally = make(written, batch_size=batch, budget=budget).run(JOBS, lambda: steps.append(1))
    assert written == {str(i): i for i in range(30)}
    assert (tally.done, tally.failed, len(steps)) == (30, [], 30)


def test_threads_do_not_share_a_draft(tmp_path: Path) -> None:
    """Names that differ behind their first hundred characters."""
    paths = [tmp_path / f"{'x' * 110}{i}.png" for i in range(8)]

    def slow(draft: Path, text: str) -> None:
        with draft.open("w") as file:
            for letter in text:
                file.write(letter)
                file.flush()
                time.sleep(0.001)

    threads = [
        threading.Thread(target=write_whole, args=(path, partial(slow, text=str(i) * 20)))
        for i, path in enumerate(paths)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_text() for path in paths] == [str(i) * 20 for i in range(8)]
    assert len(list(tmp_path.iterdir())) == 8
    plain = tmp_path / "plain"
    plain.touch()
    assert paths[0].stat().st_mode == plain.stat().st_mode


def test_too_little_memory_is_said() -> None:
    def show(pictures: Sequence[Any]) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"not enough memory on the GPU for 2 pictures of \(4, 5\); lower batch_size"):
        shown(show, [np.zeros((4, 5, 3), np.uint8)] * 2)


def test_pixels_in_memory_stay_within_the_budget() -> None:
    held, most, lock = [0], [0], threading.Lock()

    def read(path: Path) -> Any:
        with lock:
            held[0] += (4 + number(path) % 3) * 5
            most[0] = max(most[0], held[0])
        return picture(path)

    def write(job: PictureJob, picture: Any, ids: Any) -> None:
        time.sleep(0.003)
        with lock:
            held[0] -= picture.shape[0] * 5

    make(write, read, batch_size=4, workers=8, budget=70).run(JOBS)
    assert 30 < most[0] <= 70


def test_files_that_can_not_be_read_are_named_and_the_others_done() -> None:
    def read(path: Path) -> Any:
        if number(path) % 10 == 3:
            raise DataError(f"{path}: damaged")
        if number(path) == 5:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return picture(path)

    written = Written()
    tally = make(written, read, batch_size=4).run(JOBS)
    assert sorted(str(path) for path, _ in tally.failed) == ["13.png", "23.png", "3.png", "5.png"]
    assert tally.done == len(written) == 26


def test_a_result_that_can_not_be_written_is_named_and_a_full_disk_ends_it() -> None:
    def write(job: PictureJob, picture: Any, ids: Any) -> None:
        if job.name == Path("7"):
            raise OSError(error, "no", "x")

    error = errno.ENAMETOOLONG
    tally = make(write).run(JOBS)
    assert [path for path, _ in tally.failed] == [Path("7.png")]
    error = errno.ENOSPC
    with pytest.raises(UserError, match="results can't be written any more"):
        make(write).run(JOBS)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_whatever_ends_it_leaves_no_thread_behind(error: type[BaseException]) -> None:
    def shown(pictures: Sequence[Any]) -> Any:
        raise error

    before = threading.active_count()
    with pytest.raises(error):
        make(Written(), network=shown, budget=20).run(JOBS)
    assert threading.active_count() == before


def test_the_network_does_not_wait_for_files() -> None:
    def slow(pictures: Sequence[Any]) -> Any:
        time.sleep(0.01 * len(pictures))
        return show(pictures)

    tally = make(Written(), network=slow, batch_size=4).run(JOBS)
    assert tally.busy / tally.wall > 0.8
