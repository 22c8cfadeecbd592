"""Networks, batches and guards on a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from idd_seg.benchmarks.timing import peak_device_memory
from idd_seg.data.pipeline.prefetch import Prefetcher
from idd_seg.distillation.non_finite import NonFiniteGuard
from idd_seg.errors import NonFiniteError
from idd_seg.models.layers import GridMeans
from idd_seg.types import Batch
from tests.models.test_segmenter import HEADS, build

pytestmark = pytest.mark.gpu
IMAGE = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def gradients(head: str, device: torch.device) -> list[Tensor]:
    """Return the logits of a network of random weights, and the gradients of its parameters."""
    torch.manual_seed(0)
    network = build(head, "resnet 8", dropout=0.0).to(device).train()
    outputs = network(IMAGE.to(device))
    (outputs.logits.square().mean() + outputs.auxiliary.square().mean()).backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    return [x.detach().cpu() for x in (outputs.logits, *grads)]


@pytest.mark.parametrize("head", HEADS)
def test_a_network_gives_what_a_cpu_gives(head: str, gpu: torch.device, exact: None) -> None:
    for a, b in zip(gradients(head, gpu), gradients(head, torch.device("cpu")), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3 * float(b.abs().max()) + 1e-7)


@pytest.mark.parametrize("head", HEADS)
def test_a_network_gives_the_same_bits_twice(head: str, gpu: torch.device, deterministic: None) -> None:
    for a, b in zip(gradients(head, gpu), gradients(head, gpu), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_means_of_cells_by_products_are_those_of_the_pooling(bins: int, gpu: torch.device, deterministic: None) -> None:
    x = torch.randn(2, 4, 13, 20, generator=torch.Generator().manual_seed(1)).to(gpu)
    pooling, leaf = GridMeans(bins), x.clone().requires_grad_()
    found = pooling(leaf)
    torch.testing.assert_close(found.detach(), torch.nn.functional.adaptive_avg_pool2d(x, bins), rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert float(leaf.grad.sum()) == pytest.approx(2 * 4 * bins**2, rel=1e-5)


def test_batches_arrive_as_they_were_loaded(gpu: torch.device) -> None:
    def one(number: int) -> Batch:
        image = torch.full((2, 3, 64, 64), number, dtype=torch.uint8)
        return Batch(image, image[:, 0], torch.zeros(2, 4), ["a", "b"])

    loaded = DataLoader(range(6), batch_size=None, collate_fn=one, pin_memory=gpu.type == "cuda")
    feed = Prefetcher(loaded, gpu)
    for number, batch in enumerate(feed):
        busy = torch.randn(512, 512, device=gpu)
        for _ in range(20):
            busy = busy @ busy / 512
        assert batch.image.device.type == gpu.type
        assert bool((batch.image == number).all())
        assert bool((batch.label == number).all())
    assert number == 5
    assert feed.waited >= 0


def test_a_loss_that_is_not_finite_is_found(gpu: torch.device) -> None:
    guard = NonFiniteGuard()
    good, bad = torch.tensor(1.0, device=gpu), torch.tensor(math.inf, device=gpu)
    assert guard.usable(good, {"ce": good}, ["a.png"], 1)

    def until_known() -> None:  # at once on a CPU, when it is asked for on a GPU
        guard.usable(bad, {"ce": bad}, ["b.png"], 2)
        guard.settle()

    with pytest.raises(NonFiniteError, match=r"step 2: ce = inf; batch: b\.png"):
        until_known()


def test_peak_memory_of_a_call(gpu: torch.device) -> None:
    if gpu.type != "cuda":
        pytest.skip("only PyTorch's allocator on a GPU tells it")
    held = torch.ones(2**20, device=gpu)
    found = peak_device_memory(lambda: held.repeat(64), gpu)
    assert 256 * 2**20 <= found < 300 * 2**20
