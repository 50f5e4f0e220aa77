"""PaliGemma's released .npz files (big_vision's names) as the backbone of a policy.

Source: PaliGemma, arXiv 2407.07726; openpi's paths under `PaliGemma/` are the same as those under `params/` here.
"""

from pathlib import Path

import jax
from jax.sharding import Mesh

from pizero_jax import policies
from pizero_jax.config import PolicyConfig
from pizero_jax.types import Params
from pizero_jax.weights import source as sources
from pizero_jax.weights.openpi import LOSS
from pizero_jax.weights.openpi_layout import leaf, to_openpi
from pizero_jax.weights.source import Leaf


def read(path: str | Path, config: PolicyConfig, *, mesh: Mesh | None = None, param_dtype: str | None = None) -> Params:
    """The parameters under "backbone" of the policy of `config`, without adapters.

    Args:
      path: of the .npz file; arrays beside `params/` are left alone.
      mesh: the parameters arrive laid out over it as in training.
      param_dtype: of the parameters; that of the file by default.

    Raises:
      InputError: a report of what is missing, of another shape, or unused beside that or in the main (a few extra
        arrays are left out with a warning); or the file cannot be read.
    """
    arrays = sources.of_npz(path)
    arrays = arrays._replace(shapes={k: x for k, x in arrays.shapes.items() if k.startswith("params/")})
    policy = policies.make(config, LOSS)
    abstract = sources.backbone(policy)
    expected = {npz_name(k): x for k, x in jax.eval_shape(to_openpi, abstract).items()}
    arrays = sources.without_extras(arrays, expected)
    sources.check(arrays, expected, "the PaliGemma of config.policy")
    leaves = {ours: leaf(ours) for ours in sources.flat(abstract)}
    table = {ours: Leaf(tuple(map(npz_name, leaf.names)), leaf.make) for ours, leaf in leaves.items()}
    return sources.fill(policy, table, arrays, mesh, param_dtype)


def npz_name(openpi_name: str) -> str:
    return openpi_name.replace("PaliGemma/", "params/", 1)
