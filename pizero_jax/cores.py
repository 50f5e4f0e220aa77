"""The cores of this host."""

import os


def available() -> int:
    """How many of them this process may use: a scheduler or a container often gives it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
