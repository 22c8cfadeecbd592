"""Every term on a GPU: it gives what a CPU gives, and with deterministic algorithms the same bits twice."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from idd_seg.config.from_python import composed
from idd_seg.config.groups import options_of
from idd_seg.config.instantiate import make
from idd_seg.types import Batch, Outputs

pytestmark = pytest.mark.gpu
TERMS = sorted(options_of("loss"))
CHANNELS = dict.fromkeys(("stage1", "stage2", "stage3", "stage4", "head"), 16)
CPU = torch.device("cpu")
IMAGES, SIDE, GRID = 2, 128, 16


@cache
def nodes() -> dict[str, Any]:
    """The configurations of all terms."""
    with composed(["data=shapes", "loss=every"]) as cfg:
        return {name: OmegaConf.to_container(cfg.loss[name], resolve=True) for name in TERMS}


def outputs(device: torch.device, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(IMAGES, 11, GRID, GRID, generator=generator)
    maps = {name: torch.randn(IMAGES, 16, GRID, GRID, generator=generator).relu_() for name in CHANNELS}
    leaf = seed == 1
    return Outputs(
        logits.to(device).requires_grad_(leaf), {k: x.to(device).requires_grad_(leaf) for k, x in maps.items()}
    )


def batch(device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(11, (IMAGES, SIDE // 8, SIDE // 8), generator=generator)
    label = label.repeat_interleave(8, 1).repeat_interleave(8, 2)
    label[:, :5] = 255
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(IMAGES, 1)
    image = torch.randn(IMAGES, 3, SIDE, SIDE, generator=generator)
    return Batch(image, label, box, ["a", "b"]).to(device)


def computed(name: str, device: torch.device, seed: int = 0) -> list[Tensor]:
    """Build a term anew, take its own step, and return its loss and the gradients of the student's outputs."""
    torch.manual_seed(0)
    term = make(DictConfig(nodes()[name]), f"loss.{name}")
    term.bind(CHANNELS, CHANNELS)
    term.to(device).train()
    student, teacher, shown = outputs(device, 1), outputs(device, 2), batch(device)
    torch.manual_seed(seed)
    term.update(student, teacher, shown)
    loss = term(student, teacher, shown)
    loss.backward()
    leaves = [student.logits, *student.features.values()]
    return [x.cpu() for x in (loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None))]


@pytest.mark.parametrize("name", TERMS)
def test_a_term_gives_what_a_cpu_gives(name: str, gpu: torch.device, exact: None) -> None:
    expected = computed(name, CPU)
    again = computed(name, CPU, seed=1)
    if not all(torch.equal(a, b) for a, b in zip(expected, again, strict=True)):
        pytest.skip("draws random numbers, and a GPU draws others")
    found = computed(name, gpu)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()) + 1e-9)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_gives_the_same_bits_twice(name: str, gpu: torch.device, deterministic: None) -> None:
    for a, b in zip(computed(name, gpu), computed(name, gpu), strict=True):
        assert torch.equal(a, b)
