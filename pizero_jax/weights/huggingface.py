"""Hugging Face's weights: PaliGemma as in `transformers`, and lerobot's pi0 and pi0.5, in and out."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from pizero_jax import policies
from pizero_jax.config import BackboneConfig, FlowConfig, LossConfig, PolicyConfig, TwoTimesConfig
from pizero_jax.errors import InputError
from pizero_jax.types import Params, Policy
from pizero_jax.weights import safetensors
from pizero_jax.weights import source as sources
from pizero_jax.weights.download import fetch
from pizero_jax.weights.huggingface_config import facts_of, infer, lerobot_facts, transformers_facts
from pizero_jax.weights.huggingface_layout import LEROBOT, TRANSFORMERS, Names, leaf, names_of, to_huggingface
from pizero_jax.weights.merge import merge
from pizero_jax.weights.openpi import Weights
from pizero_jax.weights.source import Source

LOSS = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)
ADDED_ROWS = 64  # transformers appends so many embeddings to PaliGemma's, the first of them for "<image>"
UNREAD_HEAD = "model.paligemma_with_expert.gemma_expert.lm_head.weight"
NOT_NEEDED = "|".join(
    [
        r".*\.rotary_emb\.inv_freq",
        r".*\.position_ids",
        r".*vision_tower\.(vision_model\.)?head\..*",  # SigLIP's pooling
        r".*gemma_expert\.(lm_head|model\.embed_tokens)\.weight",  # the expert reads no words
        r"(un)?normalize_(inputs|targets|outputs)\..*",  # statistics, in lerobot's older files
    ]
)


def load(source: str | Path, **options: Any) -> tuple[Policy, Params]:
    """Policy and parameters of lerobot's pi0 or pi0.5; see `read`."""
    weights = read(source, **options)
    return policies.make(weights.config, weights.loss), weights.params


def read(
    source: str | Path,
    *,
    head_dim: int | None = None,
    vision_heads: int | None = None,
    mesh: Mesh | None = None,
    param_dtype: str | None = None,
    **changes: Any,
) -> Weights:
    """lerobot's pi0 or pi0.5: its config, from the shapes of the arrays and `config.json` beside them, and parameters.

    lerobot's loss leaves padded dimensions out but counts steps past the end of an episode; here neither counts.

    Args:
      source: whatever `download.fetch` knows that leads to a safetensors file, or to a folder with one or with an
        index of several.
      head_dim: width of a head, which shapes do not tell; 256 by default.
      vision_heads: of SigLIP; by default as many as are 72 wide.
      mesh: the parameters arrive laid out over it as in training.
      param_dtype: of the parameters; that of the arrays by default.
      **changes: fields of the policy's config that the files do not tell: `cameras`, `dtype`, ...

    Raises:
      InputError: a report of what is missing, unused or of another shape; or a file cannot be read.
    """
    path = fetch(str(source))
    arrays = sources.without(safetensors.of_safetensors(path), NOT_NEEDED)
    names = names_of(arrays)
    if not names.expert:
        raise InputError(f"{arrays.name} holds a PaliGemma without an expert; only a backbone can be read from it")
    arrays = without_head(arrays, names)
    config = dataclasses.replace(infer(arrays, names, facts_of(path), head_dim, vision_heads), **changes)
    policy = policies.make(config, LOSS)
    abstract = jax.eval_shape(policy.init, jax.random.key(0))
    return Weights(config, LOSS, fill(policy, abstract, arrays, names, f"lerobot's {config.name}", mesh, param_dtype))


def read_backbone(
    source: str | Path, config: PolicyConfig, *, mesh: Mesh | None = None, param_dtype: str | None = None
) -> Params:
    """The parameters under "backbone" of the policy of `config`, without adapters, from PaliGemma of `transformers`.

    Embeddings that transformers appended to the vocabulary are left out.

    Args and raises: as `read`.
    """
    arrays = sources.without(safetensors.of_safetensors(fetch(str(source))), NOT_NEEDED)
    names = names_of(arrays)
    arrays = without_added_rows(without_head(arrays, names), names, config.language.vocabulary)
    policy = policies.make(config, LOSS)
    what = "the PaliGemma of config.policy"
    return fill(policy, sources.backbone(policy), arrays, names, what, mesh, param_dtype)


def fill(
    policy: Policy, abstract: Params, arrays: Source, names: Names, what: str, mesh: Mesh | None, dtype: str | None
) -> Params:
    expected = jax.eval_shape(lambda params: to_huggingface(params, names), abstract)
    sources.check(arrays, expected, f"{what} of these sizes")
    table = {path: leaf(path, x.shape, names) for path, x in sources.flat(abstract).items()}
    return sources.fill(policy, table, arrays, mesh, dtype)


def without_head(source: Source, names: Names) -> Source:
    """The source without an output matrix beside the embedding, to which ours is tied.

    lerobot keeps two, one unused; where PaliGemma's differ, its logits cannot be ours.
    """
    heads = [name for name in source.shapes if name.endswith("lm_head.weight") and name != f"{names.embedding}.weight"]
    for head in heads if not names.expert else ():
        if not np.array_equal(source.read(head), source.read(f"{names.embedding}.weight")):
            raise InputError(f"{source.name}: {head} is not {names.embedding}.weight; here they are one matrix")
    return source._replace(shapes={name: x for name, x in source.shapes.items() if name not in heads})


def without_added_rows(source: Source, names: Names, vocabulary: int) -> Source:
    name = f"{names.embedding}.weight"
    found = source.shapes.get(name)
    if found is None or not vocabulary < found.shape[0] <= vocabulary + ADDED_ROWS:
        return source
    logging.info("%s: %s: rows from %d on, of %d, are not needed", source.name, name, vocabulary, found.shape[0])
    cut = jax.ShapeDtypeStruct((vocabulary, *found.shape[1:]), found.dtype)
    return Source(
        source.name,
        {**source.shapes, name: cut},
        lambda asked: source.read(asked)[:vocabulary] if asked == name else source.read(asked),
    )


def export(folder: str | Path, config: PolicyConfig, params: Params, *, layout: str | None = None) -> None:
    """Writes `model.safetensors` and `config.json` into a new folder; adapters are merged into their matrices.

    Args:
      folder: it must not exist.
      params: of the policy of `config`; types are kept.
      layout: "lerobot", pi0 or pi05 as its `from_pretrained` loads them (insulation is a way of training: such
        policies become pi05); or "paligemma", the backbone alone as that of `transformers` loads it. By default the
        first if the policy has an expert.

    Raises:
      InputError: the folder exists, or the layout has no place for a part of the policy.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise InputError(f"{folder} exists; name another folder")
    if not isinstance(config, BackboneConfig):
        raise InputError(f"{config.name!r} has no PaliGemma; neither layout has a place for it")
    known = isinstance(config, FlowConfig) and not isinstance(config, TwoTimesConfig)
    layout = layout or ("lerobot" if known else "paligemma")
    if layout not in ("lerobot", "paligemma"):
        raise InputError(f"layout = {layout!r}; allowed: 'lerobot', 'paligemma'")
    if layout == "lerobot" and not known:
        raise InputError(
            f"layout = 'lerobot' is for pi0 and pi05, not for {config.name}; 'paligemma' is for any backbone"
        )
    params = nn.unbox(params)
    if config.lora.rules:
        config, params = merge(config, params)
    arrays = jax.device_get(params if layout == "lerobot" else {"backbone": params["backbone"]})
    theirs = to_huggingface(arrays, LEROBOT if layout == "lerobot" else TRANSFORMERS)
    if layout == "lerobot":  # its expert has a head that nothing reads, and loading asks for it
        unread = np.zeros((), theirs[f"{LEROBOT.embedding}.weight"].dtype)
        theirs[UNREAD_HEAD] = np.broadcast_to(unread, (config.language.vocabulary, config.expert.width))
    dtype = str(params["backbone"]["language"]["final_norm"]["scale"].dtype)
    facts = lerobot_facts(config, dtype) if layout == "lerobot" else transformers_facts(config, dtype)
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    safetensors.write(partial / safetensors.SINGLE, theirs)
    (partial / "config.json").write_text(json.dumps(facts, indent=2) + "\n")
    partial.rename(folder)
