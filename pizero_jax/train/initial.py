"""Training that starts from given weights (`config.init.weights`)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from pizero_jax.errors import InputError
from pizero_jax.train.checkpoint import open_run
from pizero_jax.types import Params


def given_params(source: str, abstract: Params) -> Callable[[Params], Params]:
    """A function that puts the averaged weights of the run in the folder `source` in place of fresh parameters.

    Leaves that the run lacks keep their fresh value; both they and what is left over are logged.

    Args:
      source: workdir of a training run.
      abstract: the shapes that fresh parameters will have.

    Raises:
      InputError: `source` is no run with a finished checkpoint, or its weights do not fit; it names the leaves.
    """
    checkpoints = open_run(source, None, flag="config.init.weights")
    step = checkpoints.steps[-1]
    saved = flatten_dict(checkpoints.acting_shapes(step), sep="/")
    common = matching(flatten_dict(abstract, sep="/"), saved, source)

    def place(fresh: Params) -> Params:
        ours = flatten_dict(fresh, sep="/")
        like = {  # arrives where the fresh leaf lies; what is unused, on one device
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=ours[name].sharding if name in common else None)
            for name, x in saved.items()
        }
        theirs = flatten_dict(checkpoints.acting_params(step, unflatten_dict(like, sep="/")), sep="/")
        return unflatten_dict(ours | {name: theirs[name].astype(ours[name].dtype) for name in common}, sep="/")

    return place


def matching(ours: Mapping[str, Any], theirs: Mapping[str, Any], source: str) -> set[str]:
    """The leaves that both have, by path; the others are logged."""
    common = ours.keys() & theirs.keys()
    unlike = [
        f"{name} is {tuple(theirs[name].shape)}, should be {tuple(ours[name].shape)}"
        for name in sorted(common)
        if tuple(theirs[name].shape) != tuple(ours[name].shape)
    ]
    if unlike or not common:
        raise InputError(
            f"config.init.weights={source} does not fit config.policy: {'; '.join(unlike) or 'no leaf does'}"
        )
    for what, names in (("missing, left fresh", ours.keys() - common), ("left over, unused", theirs.keys() - common)):
        if names:
            logging.warning("config.init.weights=%s: %s: %s", source, what, ", ".join(sorted(names)))
    return common
