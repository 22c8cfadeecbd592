"""Class distances over the world: every option on two processes against one process with the whole batch."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from idd_seg.losses.idd import InterClassDistance
from idd_seg.losses.ops.class_distances import Distance
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import random_features, random_labels
from tests.ranks import ranks_of

FEW, MANY = 6, 300  # classes; of so many only those that occur have a column
STEPS = 3
PARTS = (2, 1)
TAPS = ["stage4", "head"]
Result = dict[str, Any]

CASES: dict[str, Result] = {
    f"{distance}-{normalize}-{resize}-{'memory' if memory else 'none'}": {
        "num_classes": FEW,
        "distance": distance,
        "normalize": normalize,
        "resize": resize,
        "memory": memory,
    }
    for distance, normalize, resize, memory in product(
        get_args(Distance), ("mean", "none"), ("nearest", "area"), (None, 0.7)
    )
}
CASES["many classes"] = {"num_classes": MANY, "normalize": "none"}
CASES["many classes with memory"] = {"num_classes": MANY, "normalize": "none", "memory": 0.7}
CASES["enough on all ranks together"] = {"num_classes": FEW, "normalize": "none", "min_pixels": 8}


class Student(nn.Module):
    """A map for each tap, on grids of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stage4, self.head = nn.Conv2d(3, 5, 1, stride=2), nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"stage4": self.stage4(image), "head": self.head(image)}


def share(x: Tensor, rank: int | None) -> Tensor:
    return x if rank is None else x.split(PARTS)[rank]


def scene(step: int, num_classes: int, rank: int | None) -> tuple[Batch, Outputs]:
    """Labels of a part of the classes, so that memory has to stand in for the others."""
    images = random_features(sum(PARTS), 3, 4, 4, seed=10 * step, dtype=torch.float32)
    labels = random_labels(sum(PARTS), 8, 8, num_classes=FEW, seed=step)
    labels = torch.where((labels % STEPS == step) | (step == 0), labels, 255)
    labels = torch.where(labels == 255, 255, labels * (num_classes // FEW))
    # 255 is a class of many; what is ignored is not.
    labels = torch.where(labels == 255, -1, labels)
    teacher = {
        "stage4": random_features(sum(PARTS), 7, 2, 2, seed=10 * step + 1, dtype=torch.float32),
        "head": random_features(sum(PARTS), 6, 4, 4, seed=10 * step + 2, dtype=torch.float32),
    }
    images, labels = share(images, rank), share(labels, rank)
    batch = Batch(images, labels, torch.zeros(len(images), 4), ["x"] * len(images))
    return batch, Outputs(images, {tap: share(x, rank) for tap, x in teacher.items()})


def run_case(case: Result, rank: int | None) -> Result:
    """Losses and gradients of a few steps, between which the student does not move."""
    net = Student()
    model = net if rank is None else DistributedDataParallel(net)
    term = InterClassDistance(scope="world", ignore_index=-1, taps=TAPS, **{"min_pixels": 0.25, **case})
    term.bind({"stage4": 5, "head": 4}, {"stage4": 7, "head": 6})
    losses, gradients = [], []
    for step in range(STEPS):
        batch, teacher = scene(step, case["num_classes"], rank)
        net.zero_grad()
        loss = term(Outputs(batch.image, model(batch.image)), teacher, batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    state = {key: value for key, value in term.state_dict().items() if isinstance(value, Tensor)}
    return {"losses": losses, "gradients": gradients, "state": state}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=len(PARTS),
        timeout=timedelta(seconds=60),
    )
    try:
        torch.save({name: run_case(case, rank) for name, case in CASES.items()}, Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    folder = tmp_path_factory.mktemp("world_idd")
    ranks_of(work, str(folder), number=len(PARTS))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(len(PARTS))]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str, ranks: list[dict[str, Result]]) -> None:
    expected = run_case(CASES[name], None)
    assert max(expected["losses"]) > 1e-3
    assert max(float(g.abs().max()) for g in expected["gradients"]) > 1e-4
    for result in ranks:
        assert result[name]["losses"] == pytest.approx(expected["losses"], rel=1e-5, abs=1e-7)
        for ours, whole in zip(result[name]["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))
        assert result[name]["state"].keys() == expected["state"].keys()
        for key, whole in expected["state"].items():
            torch.testing.assert_close(result[name]["state"][key], whole, rtol=1e-5, atol=1e-6)
