"""Two processes with a part of the batch each against one process with the whole batch."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from idd_seg.losses.dice import dice
from idd_seg.losses.idd import InterClassDistance, inter_class_distance, pixel_class_distance
from idd_seg.losses.ops.prototype_ema import PrototypeEMA
from idd_seg.losses.position import Position
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import random_features, random_labels
from tests.ranks import ranks_of

NUM_CLASSES = 6
STEPS = 3
# Images per rank; the ranks need not have equally many.
PARTS = (2, 1)
Result = dict[str, Any]

CASES: dict[str, Result] = {
    f"{normalize}-{resize}-{labels}": {"normalize": normalize, "resize": resize, "labels": labels}
    for normalize in ("mean", "none")
    for resize in ("nearest", "area")
    for labels in ("random", "apart", "rank 1 ignored", "all ignored")
}
CASES |= {
    f"pixels-{resize}-{labels}": {"normalize": "mean", "resize": resize, "labels": labels, "loss": pixel_class_distance}
    for resize in ("nearest", "area")
    for labels in ("random", "apart", "rank 1 ignored", "all ignored")
}


def of_dice(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int, **options: Any) -> Tensor:
    """`dice` in place of a distance, of as many classes as the student's map has channels."""
    return dice(student, torch.where(labels == 255, 255, labels % student.shape[1]))


CASES |= {
    f"dice-{labels}": {"normalize": "", "resize": "", "labels": labels, "loss": of_dice}
    for labels in ("random", "apart", "rank 1 ignored", "all ignored")
}


def labels_for(kind: str, seed: int = 0) -> Tensor:
    labels = random_labels(sum(PARTS), 8, 8, num_classes=NUM_CLASSES, seed=seed)
    if kind == "apart":
        # No rank has two classes: each edge is between ranks.
        labels = torch.where(labels == 255, 255, 1)
        labels[PARTS[0] :] = 4
        labels[PARTS[0] :, :4] = 255
    if kind == "rank 1 ignored":
        labels[PARTS[0] :] = 255
    if kind == "all ignored":
        labels[:] = 255
    return labels


def share(x: Tensor, rank: int | None) -> Tensor:
    """The images of one rank; all of them without a rank."""
    return x if rank is None else x.split(PARTS)[rank]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 1)


def data(seed: int, rank: int | None) -> tuple[Tensor, Tensor]:
    images = random_features(sum(PARTS), 3, 4, 4, seed=seed, dtype=torch.float32)
    teacher = random_features(sum(PARTS), 5, 4, 4, seed=seed + 1, dtype=torch.float32)
    return share(images, rank), share(teacher, rank)


def gradients(network: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def run_case(case: Result, rank: int | None) -> Result:
    net = network()
    model = net if rank is None else DistributedDataParallel(net)
    images, teacher = data(0, rank)
    loss = case.get("loss", inter_class_distance)(
        model(images),
        teacher,
        share(labels_for(case["labels"]), rank),
        NUM_CLASSES,
        scope="world",
        normalize=case["normalize"],
        resize=case["resize"],
        min_pixels=0.25,
    )
    loss.backward()
    return {"loss": loss.item(), "gradients": gradients(net)}


def run_memory(rank: int | None) -> list[float]:
    """Losses of a term with memory, over steps that show a few classes each."""
    term = InterClassDistance(NUM_CLASSES, scope="world", memory=0.7, normalize="none")
    term.bind({"head": 4}, {"head": 5})
    net, losses = network(), []
    for step in range(STEPS):
        images, teacher = data(10 + 2 * step, rank)
        labels = labels_for("random", seed=step)
        labels[labels % STEPS != step] = 255
        labels = share(labels, rank)
        features = net(images).detach().requires_grad_()
        batch = Batch(images, labels, torch.zeros(len(images), 4), ["x"] * len(images))
        losses.append(term(Outputs(features, {"head": features}), Outputs(teacher, {"head": teacher}), batch).item())
    return losses


def run_reader(rank: int) -> Tensor:
    """Weights of a position reader after steps on this rank's own images."""
    torch.manual_seed(0)
    term = Position(warmup_steps=0)
    term.bind({"head": 5}, {"head": 5})
    for step in range(STEPS):
        images, teacher = data(20 + 2 * step, rank)
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(images), 4)
        outputs = Outputs(teacher, {"head": teacher})
        term.update(outputs, outputs, Batch(images, images[:, 0].long(), box, ["x"] * len(images)))
    return torch.cat([p.flatten() for p in term.reader.parameters()])


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
        results = {name: run_case(case, rank) for name, case in CASES.items()}
        memory, reader = run_memory(rank), run_reader(rank)
        torch.save({"cases": results, "memory": memory, "reader": reader}, Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    folder = tmp_path_factory.mktemp("world")
    ranks_of(work, str(folder), number=len(PARTS))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(len(PARTS))]


@pytest.mark.parametrize("name", CASES)
def test_loss_equals_that_of_the_whole_batch(name: str, ranks: list[Result]) -> None:
    expected = run_case(CASES[name], None)["loss"]
    found = [result["cases"][name]["loss"] for result in ranks]
    if "loss" in CASES[name]:  # each rank has its share of a mean over pixels, which DDP averages
        found = [sum(found) / len(found)]
    assert found == pytest.approx([expected] * len(found), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_averaged_gradients_equal_those_of_the_whole_batch(name: str, ranks: list[Result]) -> None:
    expected = run_case(CASES[name], None)["gradients"]
    for result in ranks:
        for ours, whole in zip(result["cases"][name]["gradients"], expected, strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-6)


def test_the_cases_have_losses_and_gradients() -> None:
    """All but those with nothing to compare, and those of one edge divided by itself."""
    for name, case in CASES.items():
        result = run_case(case, None)
        empty = case["labels"] == "all ignored" or (
            case["labels"] == "apart" and case["normalize"] == "mean" and "loss" not in case
        )
        assert (result["loss"] > 1e-3) is not empty, name
        assert (max(float(g.abs().max()) for g in result["gradients"]) > 1e-3) is not empty, name


def test_memory_equals_that_of_the_whole_batch(ranks: list[Result]) -> None:
    expected = run_memory(None)
    assert min(expected) > 0
    for result in ranks:
        assert result["memory"] == pytest.approx(expected, rel=1e-5)


def test_readers_stay_the_same_on_all_ranks(ranks: list[Result]) -> None:
    torch.testing.assert_close(ranks[0]["reader"], ranks[1]["reader"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("normalize", ["mean", "none"])
def test_without_a_process_group_the_world_is_the_batch(normalize: str) -> None:
    student = [random_features(3, 4, 4, 4).requires_grad_() for _ in range(2)]
    teacher, labels = random_features(3, 5, 4, 4, seed=1), labels_for("random")
    losses = [
        inter_class_distance(features, teacher, labels, NUM_CLASSES, normalize=normalize, scope=scope)
        for features, scope in zip(student, ("world", "batch"), strict=True)
    ]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == losses[1].item() > 0
    assert student[0].grad is not None
    assert student[1].grad is not None
    assert torch.equal(student[0].grad, student[1].grad)


def _remember(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/memory", rank=rank, world_size=world)
    memory = PrototypeEMA(4, 2, 3, momentum=0.9)
    # Rank 0 sees the classes 0 and 1, rank 1 the classes 1 and 2.
    present = torch.tensor([[rank == 0, True, rank == 1, False]])
    nodes = torch.full((1, 4, 2), 1.0 + 2 * rank)
    memory.remember(nodes, torch.zeros(1, 4, 3), present, torch.arange(4))
    torch.save(dict(memory.state_dict()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_memory_holds_what_any_rank_saw(tmp_path: Path) -> None:
    ranks_of(_remember, 2, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["seen"].tolist() == [True, True, True, False]
    assert first["student"][:, 0].tolist() == [1.0, 2.0, 3.0, 0.0]
