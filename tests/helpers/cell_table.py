"""A whole table of cells with a known best."""

import gzip
import itertools


def write_cells(path, change=lambda rows: rows):
    """A whole table in which the digits' sum is the reward, and 50 more the accuracy."""
    names = ["code", "cifar10_val_12ep", "cifar10_test_200ep_mean", "cifar100_val_12ep"]
    lines = [",".join([*names, "cifar100_val_200ep"])]
    for code in itertools.product("01234", repeat=6):
        total = sum(map(int, code))
        lines.append(f"{''.join(code)},{total},{50 + total},{total},{total};{total + 2}")
    path.write_bytes(gzip.compress("\n".join(change(lines)).encode()))
    return path
