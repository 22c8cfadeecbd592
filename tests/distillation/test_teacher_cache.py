"""The teacher's outputs from the disk are those of the teacher; what is damaged or has no room is asked for again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from idd_seg.distillation.teacher_cache import TeacherCache
from idd_seg.errors import ConfigError
from idd_seg.types import Batch, Outputs

MAPS = ("head", "stage4")


class Counting(nn.Module):
    """A teacher of two maps that counts the pictures it is asked for."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype, self.asked = dtype, 0

    def forward(self, image: Tensor) -> Outputs:
        self.asked += len(image)
        x = image.to(self.dtype)
        return Outputs(x[:, :2, ::2, ::2] / 3, {"head": x.repeat(1, 2, 1, 1) / 7, "stage4": x - 1, "stage1": x})


def batch(*views: int, size: int = 8) -> Batch:
    image = torch.stack([torch.randn(3, size, size, generator=torch.Generator().manual_seed(v)) for v in views])
    return Batch(
        image, torch.zeros(len(views), size, size).long(), torch.zeros(len(views), 4), ["x"] * len(views), [*views]
    )


def cache(folder: Path, views: int = 10, gigabytes: float = 1.0, identity: str = "one") -> TeacherCache:
    made = TeacherCache(str(folder), gigabytes)
    made.bind({"teacher": identity}, views, MAPS)
    return made


def equal(a: Outputs, b: Outputs) -> bool:
    pairs = [(a.logits, b.logits), *((a.features[name], b.features[name]) for name in MAPS)]
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_read_is_what_was_given_and_the_teacher_but_for_half_precision(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    teacher = Counting(dtype)
    first = cache(tmp_path).ask(teacher, batch(1, 2, 3))
    again = cache(tmp_path)
    later = again.ask(teacher, batch(3, 1))  # opens the file, whose layout the teacher tells
    read = again.ask(teacher, batch(3, 1))
    assert teacher.asked == 5
    assert equal(later, read)
    assert torch.equal(first.logits[2], read.logits[0])
    live = teacher(batch(3, 1).image)
    for name in MAPS:
        torch.testing.assert_close(read.features[name].double(), live.features[name].double(), rtol=5e-4, atol=1e-6)
        if dtype == torch.bfloat16:
            assert torch.equal(read.features[name], live.features[name])


def test_maps_that_no_term_reads_are_not_kept(tmp_path: Path) -> None:
    assert set(cache(tmp_path).ask(Counting(), batch(0)).features) == set(MAPS)


def test_a_batch_of_which_one_view_is_missing_is_computed(tmp_path: Path) -> None:
    teacher, kept = Counting(), cache(tmp_path)
    kept.ask(teacher, batch(1, 2))
    kept.ask(teacher, batch(2, 4))
    assert teacher.asked == 4
    kept.ask(teacher, batch(4, 1))
    assert teacher.asked == 4


def test_pictures_without_a_number_are_never_kept(tmp_path: Path) -> None:
    teacher, kept = Counting(), cache(tmp_path)
    new = batch(1)
    new.views = None
    kept.ask(teacher, new)
    kept.ask(teacher, new)
    assert teacher.asked == 2


def test_another_teacher_has_a_folder_of_its_own(tmp_path: Path) -> None:
    teacher = Counting()
    cache(tmp_path, identity="one").ask(teacher, batch(1))
    other = cache(tmp_path, identity="two")
    other.ask(teacher, batch(1))
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 2


def test_a_flipped_bit_is_noticed_and_computed_anew(tmp_path: Path) -> None:
    teacher, kept = Counting(), cache(tmp_path)
    good = kept.ask(teacher, batch(1, 2))
    (values,) = tmp_path.glob("*/values.half")
    size = values.stat().st_size // 10
    with values.open("r+b") as file:
        file.seek(size + 40)
        byte = file.read(1)
        file.seek(size + 40)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.warns(UserWarning, match="damaged"):
        found = kept.ask(teacher, batch(1, 2))
    assert equal(found, good)
    assert teacher.asked == 4
    assert equal(kept.ask(teacher, batch(1, 2)), good)
    assert teacher.asked == 4


def test_a_record_that_was_cut_off_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, kept = Counting(), cache(tmp_path)
    kept.ask(teacher, batch(0))
    plain = os.pwrite

    def killed(file: int, content: bytes, offset: int) -> int:
        plain(file, bytes(content)[:10], offset)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", killed)
    with pytest.raises(KeyboardInterrupt):
        kept.ask(teacher, batch(5))
    monkeypatch.undo()
    good = kept.ask(teacher, batch(5))
    assert teacher.asked == 3
    assert equal(kept.ask(teacher, batch(5)), good)


def test_the_limit_is_kept_and_told(tmp_path: Path) -> None:
    teacher = Counting()
    record = 2 * (2 * 16 + 6 * 64 + 3 * 64) + 8
    kept = cache(tmp_path, views=10, gigabytes=2.5 * record / 1e9)
    with pytest.warns(UserWarning, match="holds 2 of the 10 views"):
        kept.ask(teacher, batch(0, 1))
    kept.ask(teacher, batch(0, 1))
    assert teacher.asked == 2
    kept.ask(teacher, batch(7))
    kept.ask(teacher, batch(7))
    assert teacher.asked == 4
    assert sum(p.stat().st_size for p in tmp_path.glob("*/*")) <= 2.5 * record


def test_a_full_disk_ends_the_writing_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, kept = Counting(), cache(tmp_path)
    kept.ask(teacher, batch(0))

    def full(file: int, content: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(UserWarning, match="No space left"):
        kept.ask(teacher, batch(1))
    monkeypatch.undo()
    kept.ask(teacher, batch(1))
    kept.ask(teacher, batch(0))
    assert teacher.asked == 3


def test_values_beyond_half_precision_are_not_kept(tmp_path: Path) -> None:
    teacher, kept = Counting(), cache(tmp_path)
    large = batch(1)
    large.image *= 1e6
    for _ in range(2):
        assert torch.isfinite(kept.ask(teacher, large).features["head"]).all()
    assert teacher.asked == 2


def test_a_batch_of_another_size_is_asked_for(tmp_path: Path) -> None:
    teacher, kept = Counting(), cache(tmp_path)
    kept.ask(teacher, batch(0))
    for _ in range(2):
        assert kept.ask(teacher, batch(3, size=10)).logits.shape[-1] == 5
    assert teacher.asked == 3


def test_views_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing would be read twice.*frozen_epochs"):
        TeacherCache(str(tmp_path)).bind({}, None, MAPS)


@pytest.mark.parametrize("limit", [0, -1.0])
def test_other_limits_are_refused(tmp_path: Path, limit: float) -> None:
    with pytest.raises(ConfigError, match="gigabytes"):
        TeacherCache(str(tmp_path), limit)
