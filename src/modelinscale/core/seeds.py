"""Chance as an argument: every random choice takes a generator derived from one seed and a name."""

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose: stable across machines and versions, independent between names."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose (Philox: counter-based, the same on every platform)."""
    return np.random.Generator(np.random.Philox(derive(seed, *names)))
