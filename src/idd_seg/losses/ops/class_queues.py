"""Queues of vectors, one a class, that all processes hold alike."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from idd_seg.distributed.collectives import world_size
from idd_seg.ops.precision import Adjusting, Change, moves

# Unit vectors need no range: float16 is eight times as exact as bfloat16 for the same memory.
STORAGE = torch.float16
RANDOM_BITS = 24


class ClassQueues(Adjusting):
    """The last `length` vectors of each class, first in, first out.

    Vectors are kept in float16: 2 * num_classes * length * width bytes. The queues are no buffers: DDP would send those
    from rank 0 at every step. They move with the module, keep their precision where it is cast, and are saved whole.
    Every rank pushes the vectors of all of them in the same order, so that the queues are the same everywhere.

    Attributes:
        rows: (num_classes * length + 1, width), class after class; the last row collects what is not kept.
        next: (num_classes,) int64, the slot that the next vector of a class takes.
        filled: (num_classes,) int64, how many vectors a class has.
    """

    def __init__(self, num_classes: int, length: int, width: int) -> None:
        super().__init__()
        self.num_classes, self.length = num_classes, length
        self.rows = torch.zeros(num_classes * length + 1, width, dtype=STORAGE)
        self.next = torch.zeros(num_classes, dtype=torch.int64)
        self.filled = torch.zeros(num_classes, dtype=torch.int64)

    def adjusted(self, change: Change) -> Change:
        """Follow the module to another device."""
        self.rows, self.next, self.filled = map(moves(change), (self.rows, self.next, self.filled))
        return change

    @torch.no_grad()
    def push(self, vectors: Tensor, classes: Tensor) -> None:
        """Add vectors (E, width) to the queues of their classes (E,), in order, with those of the other ranks.

        Classes of `num_classes` mean none. Of more than `length` vectors of a class the last are kept.
        """
        vectors, classes = gather(vectors.to(STORAGE), classes, self.num_classes)
        order = classes.argsort(stable=True)
        classes = classes[order]
        place, counts = places(classes, self.num_classes + 1)
        counts = counts[:-1]
        known = classes.clamp(max=self.num_classes - 1)
        kept = (classes < self.num_classes) & (place >= counts[known] - self.length)
        slot = known * self.length + (self.next[known] + place) % self.length
        self.rows.index_copy_(0, torch.where(kept, slot, len(self.rows) - 1), vectors[order])
        self.next = (self.next + counts) % self.length
        self.filled = (self.filled + counts).clamp(max=self.length)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` vectors of each class, (num_classes * count, width), and which of them exist.

        They are drawn without replacement by PyTorch's default generator; a class that has fewer gives all it has.
        """
        slots = torch.arange(self.length, device=self.rows.device)
        exists = slots < self.filled[:, None]
        if count < self.length:
            keys = torch.rand(exists.shape, device=self.rows.device).masked_fill_(~exists, 2.0)
            chosen = keys.topk(count, dim=1, largest=False, sorted=False).indices
            exists = exists.gather(1, chosen)
        else:
            chosen = slots.expand_as(exists)
        base = torch.arange(self.num_classes, device=self.rows.device)[:, None] * self.length
        return self.rows[(base + chosen).flatten()], exists.flatten()

    def get_extra_state(self) -> dict[str, Any]:
        """Return the queues, so that they are saved."""
        return {"rows": self.rows[:-1], "next": self.next, "filled": self.filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the queues.

        Raises:
            ValueError: if they were saved with other numbers of classes, lengths or widths.
        """
        ours, theirs = tuple(self.rows[:-1].shape), tuple(state["rows"].shape)
        if ours != theirs or len(state["next"]) != self.num_classes:
            raise ValueError(
                f"the saved queues of {len(state['next'])} classes are {theirs}, those of this run's "
                f"{self.num_classes} classes {ours}"
            )
        self.rows[:-1].copy_(state["rows"])
        self.next.copy_(state["next"])
        self.filled.copy_(state["filled"])


def places(groups: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """For ascending group ids (E,): the place of each element in its group, and the groups' sizes (number,)."""
    counts = torch.zeros(number, dtype=torch.int64, device=groups.device)
    counts.scatter_add_(0, groups, torch.ones_like(groups))
    starts = counts.cumsum(0) - counts
    return torch.arange(len(groups), device=groups.device) - starts[groups], counts


def draw(classes: Tensor, num_classes: int, per_class: int) -> tuple[Tensor, Tensor]:
    """Draw up to `per_class` positions of each class in each image, by PyTorch's default generator.

    Sorted by image, class and a random number, the positions of a class in an image lie side by side in random order;
    no class is asked for its size, which would make a GPU wait.

    Args:
        classes: (N, P) int64 of positions, `num_classes` for none.

    Returns:
        Positions (E,) in 0..N P - 1, image after image, and their classes (E,), `num_classes` where a position is to be
        left out; E is min(N P, N num_classes per_class).
    """
    images, positions = classes.shape
    group = (classes + torch.arange(images, device=classes.device)[:, None] * (num_classes + 1)).flatten()
    keys = (group << RANDOM_BITS) + torch.randint(1 << RANDOM_BITS, group.shape, device=group.device)
    order = keys.argsort(stable=True)
    place, _ = places(group[order], images * (num_classes + 1))
    found = classes.flatten()[order]
    chosen = (place < per_class) & (found < num_classes)
    first = (~chosen).to(torch.uint8).argsort(stable=True)[: images * min(positions, num_classes * per_class)]
    return order[first], torch.where(chosen, found, num_classes)[first]


def gather(vectors: Tensor, classes: Tensor, nothing: int) -> tuple[Tensor, Tensor]:
    """Concatenate vectors (E, C) and classes (E,) of all ranks, by rank; without a process group they stay.

    Ranks may have different numbers E. Only those of a class travel, as many from each rank as the fullest has; the
    rest of the places is `nothing`.
    """
    ranks = world_size()
    if ranks == 1:
        return vectors, classes
    order = (classes == nothing).to(torch.uint8).argsort(stable=True)
    most = (classes != nothing).sum()
    dist.all_reduce(most, dist.ReduceOp.MAX)
    size = int(most)
    order = order[:size]
    sent, ids = vectors.new_zeros(size, vectors.shape[1]), classes.new_full((size,), nothing)
    sent[: len(order)], ids[: len(order)] = vectors[order], classes[order]
    all_vectors = [torch.empty_like(sent) for _ in range(ranks)]
    all_ids = [torch.empty_like(ids) for _ in range(ranks)]
    dist.all_gather(all_vectors, sent)
    dist.all_gather(all_ids, ids)
    return torch.cat(all_vectors), torch.cat(all_ids)
