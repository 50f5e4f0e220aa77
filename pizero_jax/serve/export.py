"""A trained policy as a folder that runs without this package (`serve/standalone.py`)."""

import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pizero_jax.data import tokenizers
from pizero_jax.errors import InputError
from pizero_jax.serve import standalone
from pizero_jax.serve.compiled import Solver, blank, of_seeds
from pizero_jax.serve.policy import TrainedPolicy
from pizero_jax.types import Observation


def export(
    trained: TrainedPolicy,
    folder: Path,
    platforms: Sequence[str],
    num_steps: int | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> None:
    """Writes policy.stablehlo, params.npz, policy.json, policy.py, and the tokenizer's file if it has one.

    Args:
      folder: new or empty.
      platforms: "cpu", "cuda", "tpu", "rocm", at least one.
      num_steps: of the solver, the config's by default.
      quantization: what is known of it, for policy.json.

    Raises:
      InputError: the folder has something in it, or the policy is none that can be exported.
    """
    config, processor = trained.config, trained.processor
    check(trained, folder)
    leaves, tree = jax.tree.flatten(trained.params)
    solver = Solver(num_steps or config.policy.num_steps, config.policy.solver)
    act, row = of_seeds(trained, solver), blank(trained)

    def program(leaves, images, image_masks, state, prompt, prompt_mask, seeds):
        return act(
            jax.tree.unflatten(tree, leaves), Observation(images, image_masks, state, prompt, prompt_mask), seeds
        )

    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *np.shape(x)), x.dtype), row)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    inputs = one.images, one.image_masks, one.state, one.prompt, one.prompt_mask
    seeds = jax.ShapeDtypeStruct((1, 2), np.uint32)
    exported = jax.export.export(jax.jit(program), platforms=platforms)(shapes, *inputs, seeds)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.stablehlo").write_bytes(exported.serialize())
    # NumPy's files have no bfloat16: their bytes are kept, and the types beside them.
    np.savez(
        folder / "params.npz", **{str(i): np.asarray(x).view(f"V{x.dtype.itemsize}") for i, x in enumerate(leaves)}
    )
    shutil.copyfile(standalone.__file__, folder / "policy.py")
    tokenizer = config.data.tokenizer
    if tokenizer != "bytes":
        shutil.copyfile(tokenizer, folder / "tokenizer.model")
        tokenizer = "tokenizer.model"
    form = tokenizers.PROMPTS[config.data.prompt]
    spec = {
        "policy": config.policy.name,
        "step": trained.step,
        "versions": trained.versions,
        "quantization": quantization,
        "platforms": list(platforms),
        "parameter_dtypes": [str(x.dtype) for x in leaves],
        "cameras": list(processor.cameras),
        "image_size": config.policy.image_size,
        "state_dim": config.policy.state_dim,
        "prompt_length": config.policy.prompt_length,
        "blind": config.data.blind,
        **processor.maps(),
        "tokenizer": tokenizer,
        "prompt": {
            "pieces": list(form.pieces),
            "lower": form.lower,
            "bos": processor.tokenizer.bos,
            "openpi_state_bins": config.data.openpi_state_bins,
        },
    }
    (folder / "policy.json").write_text(json.dumps(spec, indent=1) + "\n")


def check(trained: TrainedPolicy, folder: Path) -> None:
    """Raises an InputError if `export` cannot write this policy there."""
    config = trained.config
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("jax.export needs the package flatbuffers: pip install 'pizero_jax[serve]'")
    check_folder(folder)
    if trained.policy.velocity is None:
        raise InputError(
            f"config.policy.name = {config.policy.name!r} has no flow: only policies with one are exported"
        )
    if config.data.history != 1:
        raise InputError(f"config.data.history = {config.data.history}: policies of one moment can be exported only")
    if config.policy.solver == "ddpm":
        raise InputError("config.policy.solver = 'ddpm' draws noise in every step, which is not exported; set 'ddim'")


def check_folder(folder: Path) -> None:
    """Raises an InputError if something is there already."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--output={folder} is not empty; name a new folder")
