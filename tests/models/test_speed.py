"""What makes networks faster leaves what they compute as it is."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

from idd_seg.errors import ConfigError
from idd_seg.models import speed as module
from idd_seg.models.acceleration.cuda_graph import Graphed
from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.speed import Speed
from idd_seg.models.teacher import FrozenTeacher
from tests.models.test_fold_batch_norm import moved, norms

CPU = torch.device("cpu")


def network() -> Segmenter:
    torch.manual_seed(1)
    return moved(Segmenter("resnet18", PSPHead, 5, auxiliary=False, dropout=0.0))  # type: ignore[return-value]


def both(speed: Speed) -> tuple[Segmenter, FrozenTeacher]:
    student, teacher = network(), FrozenTeacher(network())
    speed.prepare(student, teacher, CPU)
    return student, teacher


def test_by_default_the_teacher_is_folded_and_the_student_is_not() -> None:
    student, teacher = both(Speed())
    assert norms(teacher) == 0
    assert norms(student) > 20


def test_a_teacher_may_stay_as_it_is() -> None:
    assert norms(both(Speed(fold_teacher=False))[1]) > 20


def test_a_teacher_that_can_t_be_folded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: object) -> int:
        raise RuntimeError("the folded network's logits differ by 1")

    monkeypatch.setattr(module, "fold_batch_norms", differs)
    with pytest.raises(ConfigError, match=r"differ by 1; use speed\.fold_teacher=false"):
        both(Speed())


def test_channels_last_gives_equal_outputs_and_gradients() -> None:
    image = torch.randn(2, 3, 64, 64)
    plain, (last, teacher) = network().train(), both(Speed(channels_last=True, fold_teacher=False))
    last.train()
    found, expected = last(image), plain(image)
    assert found.features["stage4"].is_contiguous(memory_format=torch.channels_last)
    assert teacher(image).features["stage4"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    for outputs in (found, expected):
        outputs.logits.square().mean().backward()
    for a, b in zip(last.parameters(), plain.parameters(), strict=True):
        scale = 1e-4 * float(b.grad.abs().max()) + 1e-9
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=scale)


def test_a_teacher_in_bfloat16_gives_nearly_equal_logits() -> None:
    image = torch.randn(2, 3, 64, 64)
    plain, (_, teacher) = FrozenTeacher(network()), both(Speed(teacher_precision="bfloat16", channels_last=True))
    found, expected = teacher(image), plain(image)
    assert found.logits.dtype == torch.bfloat16
    assert float((found.logits.float() - expected.logits).abs().max()) < 0.03 * float(expected.logits.abs().max())


@pytest.mark.parametrize("chosen", ["float32", "float16"])
def test_a_teachers_precision_holds_against_autocast_and_a_cast_of_the_whole(chosen: str) -> None:
    _, teacher = both(Speed(teacher_precision=chosen))
    nn.ModuleList([teacher]).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = teacher(torch.randn(1, 3, 64, 64))
    assert found.logits.dtype == getattr(torch, chosen)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="float32, bfloat16, float16 or null, got 'half'"):
        Speed(teacher_precision="half")


def test_a_graph_and_a_compiler_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        Speed(teacher_graph=True, compile=True)


def test_each_run_chooses_the_precision_of_its_products() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        Speed(tf32=True).set_up()
        assert torch.get_float32_matmul_precision() == "high"
        Speed().set_up()
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def test_without_a_compiler_a_run_goes_on_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", missing)
    image = torch.randn(1, 3, 32, 32)
    with pytest.warns(UserWarning, match="no working compiler here.*No working C"):
        student, _ = both(Speed(compile=True, fold_teacher=False))
    assert torch.equal(student(image).logits, network()(image).logits)


class Small(nn.Module):
    """Few layers: a compiler takes its time for each."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available() and not shutil.which("g++"), reason="no compiler")
def test_a_compiled_network_gives_equal_outputs_gradients_and_names() -> None:
    plain = Small()
    compiled = copy.deepcopy(plain)
    Speed(compile=True).prepare(compiled, None, CPU)
    for size in ((16, 16), (16, 24), (18, 20)):  # later sizes are compiled once, for all
        image = torch.randn(2, 3, *size)
        found, expected = compiled(image), plain(image)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        compiled.zero_grad(), plain.zero_grad()
        found.square().mean().backward(), expected.square().mean().backward()
        for a, b in zip(compiled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_a_graphed_network_without_a_gpu_is_the_network() -> None:
    plain, image = network(), torch.randn(1, 3, 32, 32)
    assert torch.equal(Graphed(plain)(image).logits, plain(image).logits)
    assert Graphed(plain).channels == plain.channels


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_replayed_graph_gives_equal_outputs() -> None:
    plain = network().cuda()
    graphed = Graphed(plain)
    with torch.no_grad():
        for seed in range(3):
            image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)).cuda()
            torch.testing.assert_close(graphed(image).logits, plain(image).logits, rtol=1e-4, atol=1e-5)
        for size in (32, 48, 80):
            image = torch.randn(1, 3, size, size).cuda()
            torch.testing.assert_close(graphed(image).logits, plain(image).logits, rtol=1e-4, atol=1e-5)
    assert len(graphed.recordings) == 2
