"""How a process that trains on a CPU is told to keep its memory. It needs no torch."""

KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": str(256 * 2**20),
}
"""Environment that makes glibc keep freed memory: giving it back and taking it again costs a CPU
half of its training time at large batches (benchmarks/speed/training_speed.py)."""
