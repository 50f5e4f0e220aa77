"""Training that starts from given weights (`config.init.weights`)."""

from collections.abc import Callable
from typing import Any

import jax
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from pizero_jax.train.checkpoint import open_run
from pizero_jax.types import InputError, Params


def given_params(source: str) -> Callable[[Params], Params]:
    """A function that puts the averaged weights of the run in the folder `source` in place of fresh parameters.

    Raises:
      InputError: `source` is no run with a finished checkpoint.
    """
    checkpoints = open_run(source, None, flag="config.init.weights")
    step = checkpoints.steps[-1]

    def place(fresh: Params) -> Params:
        return merge(fresh, checkpoints.acting_params(step), f"config.init.weights={source} (step {step})")

    return place


def merge(fresh: Params, given: Params, source: str) -> Params:
    """`fresh` with every leaf replaced that `given` has, in the place and type of the fresh one.

    Leaves that are missing in `given` keep their fresh value; both they and what is left over are logged.

    Raises:
      InputError: naming the leaves whose shapes differ, or that nothing fits at all.
    """
    ours: dict[str, Any] = flatten_dict(fresh, sep="/")
    theirs: dict[str, Any] = flatten_dict(given, sep="/")
    common = ours.keys() & theirs.keys()
    shapes = {k: (theirs[k].shape, ours[k].shape) for k in sorted(common)}
    unlike = [f"{k} is {there}, should be {here}" for k, (there, here) in shapes.items() if there != here]
    if unlike:
        raise InputError(f"{source} does not fit config.policy: {'; '.join(unlike)}")
    if not common:
        raise InputError(f"{source} has no leaf of this policy: {', '.join(sorted(theirs)[:5])}, ...")
    for what, names in (("missing, kept fresh", ours.keys() - common), ("left over", theirs.keys() - common)):
        if names:
            logging.warning("%s: %s: %s", source, what, ", ".join(sorted(names)))
    logging.info("%s: %d of %d leaves loaded", source, len(common), len(ours))
    placed = {k: jax.device_put(theirs[k].astype(x.dtype), x.sharding) if k in common else x for k, x in ours.items()}
    return unflatten_dict(placed, sep="/")
