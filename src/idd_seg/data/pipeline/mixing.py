"""Batches of pictures with and without labels: each kind in an order of its own."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

from torch.utils.data import Sampler

from idd_seg.data.pipeline.dataset import EpochSampler, Key, TrainingSampler
from idd_seg.errors import ConfigError

ORDER = 2**63  # added to the seed for the order of pictures without labels: beyond what a seed or an epoch may be


def pictures_of(share: float, batch_size: int) -> int:
    """Return how many pictures of a batch have no labels.

    Raises:
        ConfigError: if a share that is not 0 is less than a picture, or one that is not 1 leaves none with labels.
    """
    number = int(share * batch_size + 0.5)
    if (share > 0 and number == 0) or (share < 1 and number == batch_size):
        nearest = "none" if number == 0 else "all"
        raise ConfigError(
            f"data.unlabelled_share={share:g} of data.batch_size={batch_size} is nearest to {nearest} of the pictures; "
            f"take a multiple of {1 / batch_size:.2g}, or a larger batch"
        )
    return number


class MixedSampler(Sampler[Key]):
    """Yields the keys of full batches: first those of pictures with labels, then those of pictures without.

    Both kinds go through epochs of their own, whose order depends on the seed and the epoch alone. Of a batch of all
    processes together each process has its share, so that their number does not change what is in it.

    Args:
        labelled, unlabelled: number of pictures of each kind; index `labelled` is the first one without labels.
        batch_size: of this process.
        without: pictures of a batch that have no labels.
        batches: of the whole training; None is one epoch of the labelled pictures, or of the others if there are none.
        first: the batch to begin at.

    Raises:
        ConfigError: if there are fewer pictures of a kind than a batch of all processes takes.
    """

    def __init__(
        self,
        labelled: int,
        unlabelled: int,
        batch_size: int,
        without: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        batches: int | None = None,
        first: int = 0,
    ) -> None:
        kinds = [(labelled, batch_size - without, seed, 0), (unlabelled, without, seed + ORDER, labelled)]
        self.batch_size, self.first, self.parts = batch_size, first, []
        for length, number, own_seed, offset in kinds:
            if number == 0:
                continue
            epochs = EpochSampler(length, own_seed, shuffle=True, rank=rank, world=world)
            if len(epochs) < number:
                what = "data.unlabelled finds" if offset else "there are"
                raise ConfigError(
                    f"{what} {length} pictures {'without' if offset else 'with'} labels, and each batch takes "
                    f"{number * world} of them; take a smaller data.batch_size, or another data.unlabelled_share"
                )
            batches = batches or len(epochs) // number
            self.parts.append((TrainingSampler(epochs, number, batches, first), offset))
        self.batches = batches or 0

    def __len__(self) -> int:
        return min(self.batches * self.batch_size, sys.maxsize)

    def __iter__(self) -> Iterator[Key]:
        streams = [(iter(sampler), sampler.batch_size, offset) for sampler, offset in self.parts]
        for _ in range(self.first, self.batches):
            for keys, number, offset in streams:
                for epoch, index in itertools.islice(keys, number):
                    yield epoch, offset + index
