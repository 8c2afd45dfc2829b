"""Whether images fit in memory, asked before they are decoded."""

from __future__ import annotations

from pathlib import Path

from trials.errors import DataError

UNKNOWN_BYTES = 16 * 2**30
"""Taken for the memory that is free where the system does not say."""


def available_bytes() -> int:
    """Memory that is free, or can be freed; ``UNKNOWN_BYTES`` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return UNKNOWN_BYTES


def require_memory(images: str, size: int, way_out: str, most: int | None = None) -> None:
    """Raise DataError, naming ``images`` and ending in ``way_out``, if ``size`` bytes are more than ``most``.

    ``most`` is :func:`available_bytes` by default.
    """
    most = available_bytes() if most is None else most
    if size > most:
        raise DataError(
            f"{images} take {size / 2**30:.1f} GiB in memory, but at most {most / 2**30:.1f} GiB can be used: {way_out}"
        )
