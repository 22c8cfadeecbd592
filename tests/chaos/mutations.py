"""Ways in which a file is damaged."""

from __future__ import annotations

import random


def flip(content: bytes, rng: random.Random) -> bytes:
    """Turn one to four bits over."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def flip_head(content: bytes, rng: random.Random) -> bytes:
    """Turn a bit over where headers stand."""
    head = min(len(content), 200)
    return flip(content[:head], rng) + content[head:]


def cut(content: bytes, rng: random.Random) -> bytes:
    """Keep the beginning alone, be it nothing."""
    return content[: rng.randrange(len(content))]


def zeros(content: bytes, rng: random.Random) -> bytes:
    """Turn a stretch into zeros, as a disk does with what was never flushed."""
    start = rng.randrange(len(content))
    length = rng.randint(1, len(content) - start)
    return content[:start] + bytes(length) + content[start + length :]


def repeat(content: bytes, rng: random.Random) -> bytes:
    """Write a stretch twice."""
    start = rng.randrange(len(content))
    end = rng.randint(start + 1, len(content))
    return content[:end] + content[start:end] + content[end:]


def noise(content: bytes, rng: random.Random) -> bytes:
    """Put something else in its place."""
    return rng.randbytes(rng.randint(1, 2 * len(content)) % 4096 + 1)


ALL = (flip, flip_head, cut, zeros, repeat, noise)
