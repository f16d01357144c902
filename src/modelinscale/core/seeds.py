"""Chance as an argument: every random choice takes a generator derived from one seed and a name."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose: stable across machines and versions, independent between names."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose (Philox: counter-based, the same on every platform)."""
    return np.random.Generator(np.random.Philox(derive(seed, *names)))


def mixed(seed: "np.uint64", counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits for each counter, as good as random: SplitMix64 (Steele, Lea, Flood 2014) over a seed. The same on every platform and in every version."""
    with np.errstate(over="ignore"):
        z = seed + (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unmixed(seed: "np.uint64", words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The counters that `mixed` made these words of: each of its steps can be undone."""
    with np.errstate(over="ignore"):
        z = words ^ (words >> np.uint64(31)) ^ (words >> np.uint64(62))
        z *= np.uint64(pow(0x94D049BB133111EB, -1, 1 << 64))
        z ^= (z >> np.uint64(27)) ^ (z >> np.uint64(54))
        z *= np.uint64(pow(0xBF58476D1CE4E5B9, -1, 1 << 64))
        z ^= (z >> np.uint64(30)) ^ (z >> np.uint64(60))
        counters: NDArray[np.uint64] = (z - seed) * np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64)) - np.uint64(1)
    return counters
