"""Workers keep memory that they have freed for their next arrays, instead of giving it back.

A task takes and frees some GB, and memory that comes fresh from the kernel costs more than what is
done with it: copied into, 0.6 to 1.5 GB/s on a virtual machine, where memory that was used before
takes 10. Dask's nannies ask the allocator for the opposite. So workers of shards, whose arrays are
of 256 MiB at most, keep up to 1 GiB. Arrays beyond, and other processes, are left alone. Owns the
settings (of glibc; others don't look at them); refuses to start anybody.
"""

from collections.abc import Mapping

KEPT: Mapping[str, str] = {
    # only the first arena can grow to any size
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
"""Variables of the environment that a worker starts with."""
