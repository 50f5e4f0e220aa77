"""Every data set that is known, by each of its names."""

import difflib
from collections.abc import Mapping

from pizero_jax.data.embodiments import arms, bridge, droid, franka, joint_space, libero, mobile, rtx, unpublished
from pizero_jax.data.embodiments.specification import Specification
from pizero_jax.errors import InputError

ENTRIES: tuple[Specification, ...] = (
    *bridge.ENTRIES,
    *rtx.ENTRIES,
    *franka.ENTRIES,
    *arms.ENTRIES,
    *joint_space.ENTRIES,
    *mobile.ENTRIES,
    *droid.ENTRIES,
    *libero.ENTRIES,
    *unpublished.ENTRIES,
)

SPECIFICATIONS: Mapping[str, Specification] = {name: entry for entry in ENTRIES for name in entry.names}


def find(name: str) -> Specification:
    """The specification of a data set by any of its names."""
    if name not in SPECIFICATIONS:
        near = difflib.get_close_matches(name, SPECIFICATIONS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"no data set is called {name!r}; {hint}docs/new_dataset.md says how to add one")
    return SPECIFICATIONS[name]
