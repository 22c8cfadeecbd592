"""Two processes with a part of the batch each, by SyncNorm, against one process with the whole batch, by BatchNorm."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from idd_seg.distributed.sync_batch_norm import SyncNorm, synchronise
from tests.ranks import ranks_of

CHANNELS, STEPS = 3, 3
PARTS = {"equal": (2, 2), "unequal": (3, 1), "one": (1, 1)}  # images of each process
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}

# Only the normalisation, below a module of which it can be replaced.
NORMS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.BatchNorm2d(CHANNELS),
    "eps and momentum": lambda: nn.BatchNorm2d(CHANNELS, eps=0.1, momentum=0.4),
    "not affine": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "no running statistics": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "cumulative": lambda: nn.BatchNorm2d(CHANNELS, momentum=None),
    "with activation": lambda: BatchNormAct2d(CHANNELS, act_layer=nn.SiLU),
    "activation left out": lambda: BatchNormAct2d(CHANNELS, apply_act=False),
}
CASES = [(name, parts) for name in NORMS for parts in PARTS]


def network(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(NORMS[name]()).double()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    return net


def images(parts: str, step: int, rank: int | None) -> Tensor:
    """Maps whose mean and deviation differ much between images; those of one process, or all."""
    torch.manual_seed(100 + step)
    count = sum(PARTS[parts])
    scale = torch.arange(1.0, count + 1).view(-1, 1, 1, 1)
    x = (torch.randn(count, CHANNELS, 4, 5) + scale).double() * scale
    return x if rank is None else x.split(PARTS[parts])[rank].clone()


def weights(parts: str, rank: int | None) -> Tensor:
    """What the outputs are multiplied by, so that gradients are not all alike."""
    torch.manual_seed(1)
    x = torch.randn(sum(PARTS[parts]), CHANNELS, 4, 5).double()
    return x if rank is None else x.split(PARTS[parts])[rank]


def train(name: str, parts: str, rank: int | None) -> dict[str, Any]:
    """Outputs and gradients of each step, the state at the end, and the outputs of evaluation."""
    net = network(name)
    if rank is not None:
        synchronise(net)
    outputs, gradients = [], []
    for step in range(STEPS):
        x = images(parts, step, rank).requires_grad_()
        net.zero_grad()
        y = net(x)
        # Squared: the sum of normalised values alone has no gradient.
        (weights(parts, rank) * y.square()).sum().backward()
        assert x.grad is not None
        outputs.append(y.detach())
        of_parameters = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        gradients.append({"input": x.grad, **of_parameters})
    net.eval()
    with torch.no_grad():
        evaluated = net(images(parts, STEPS, rank))
    return {
        "kind": type(net[0]).__name__,
        "outputs": outputs,
        "gradients": gradients,
        "state": dict(net.state_dict()),
        "evaluated": evaluated,
    }


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        results = {f"{name}/{parts}": train(name, parts, rank) for name, parts in CASES}
        torch.save(results, Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if torch.cuda.is_available():
        pytest.skip("on a GPU PyTorch's own takes this place")
    folder = tmp_path_factory.mktemp("sync_norm")
    ranks_of(work, str(folder))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(params=CASES, ids="-".join)
def both(request: pytest.FixtureRequest, ranks: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole batch's results, and those of each process."""
    name, parts = request.param
    ours = [rank[f"{name}/{parts}"] for rank in ranks]
    assert {rank["kind"] for rank in ours} == {"SyncNorm"}
    return train(name, parts, None), ours


Both = tuple[dict[str, Any], list[dict[str, Any]]]


def test_outputs_equal_those_of_the_whole_batch(both: Both) -> None:
    whole, ours = both
    for step in range(STEPS):
        found = torch.cat([rank["outputs"][step] for rank in ours])
        torch.testing.assert_close(found, whole["outputs"][step], **TOLERANCE)


def test_gradients_of_the_input_equal_those_of_the_whole_batch(both: Both) -> None:
    whole, ours = both
    for step in range(STEPS):
        found = torch.cat([rank["gradients"][step]["input"] for rank in ours])
        torch.testing.assert_close(found, whole["gradients"][step]["input"], **TOLERANCE)


def test_gradients_of_weight_and_bias_sum_to_those_of_the_whole_batch(both: Both) -> None:
    """DDP averages them afterwards, as those of every other layer."""
    whole, ours = both
    for step in range(STEPS):
        names = set(whole["gradients"][step])
        assert names in ({"input"}, {"input", "0.weight", "0.bias"})
        for name in names - {"input"}:
            found = sum(rank["gradients"][step][name] for rank in ours)
            torch.testing.assert_close(found, whole["gradients"][step][name], **TOLERANCE)


def test_the_state_equals_that_of_the_whole_batch_on_every_rank(both: Both) -> None:
    whole, ours = both
    for rank in ours:
        assert list(rank["state"]) == list(whole["state"])
        for key, value in whole["state"].items():
            torch.testing.assert_close(rank["state"][key], value, **TOLERANCE)


def test_evaluation_equals_that_of_batch_norm(both: Both, request: pytest.FixtureRequest) -> None:
    """Nothing is sent: without running statistics each process normalises its images by themselves."""
    whole, ours = both
    name, parts = request.node.callspec.params["both"]
    if any(key.endswith("running_mean") for key in whole["state"]):
        expected = whole["evaluated"].split(PARTS[parts])
    else:
        plain = network(name).eval()
        plain.load_state_dict(whole["state"])
        expected = [plain(images(parts, STEPS, rank)).detach() for rank in range(2)]
    for rank, values in zip(ours, expected, strict=True):
        torch.testing.assert_close(rank["evaluated"], values, **TOLERANCE)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.ModuleDict({"a": BatchNormAct2d(4, act_layer=nn.Tanh), "b": nn.BatchNorm1d(4)})
        self.other = nn.GroupNorm(2, 4)


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_synchronise_keeps_names_and_tensors(on_a_cpu: None) -> None:
    net = Nested().eval()
    net.first[1].train()
    before = net.state_dict(keep_vars=True)
    synchronise(net)
    assert isinstance(net.first[1], SyncNorm)
    assert isinstance(net.second["a"], SyncNorm)
    assert isinstance(net.second["b"], SyncNorm)
    assert isinstance(net.other, nn.GroupNorm)
    after = net.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    assert [net.first[1].training, net.second["a"].training] == [True, False]


def test_synchronise_twice_changes_nothing(on_a_cpu: None) -> None:
    net = Nested()
    synchronise(net)
    before = list(net.modules())
    synchronise(net)
    assert all(one is two for one, two in zip(before, net.modules(), strict=True))


@pytest.mark.parametrize("name", NORMS)
def test_alone_it_is_batch_norm(name: str, on_a_cpu: None) -> None:
    plain, ours = network(name), network(name)
    synchronise(ours)
    x = images("equal", 0, None)
    assert torch.equal(ours(x), plain(x))
    for key, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    assert torch.equal(ours.eval()(x), plain.eval()(x))


def test_too_few_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        SyncNorm(3)(torch.zeros(3))
