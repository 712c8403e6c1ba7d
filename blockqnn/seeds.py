"""Random numbers from (seed, purpose, counter): no generator state has to be saved to resume."""

import hashlib

import numpy as np


def seed_for(seed: int, purpose: str, counter: int | str = 0) -> int:
    """Return a 63-bit seed for one purpose and counter, the same in every process."""
    text = f"{seed}/{purpose}/{counter}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, counter: int | str = 0) -> np.random.Generator:
    """Return a NumPy generator for one purpose and counter, the same in every process."""
    return np.random.Generator(np.random.PCG64(seed_for(seed, purpose, counter)))
