"""openpi's parameters: its names and layouts, mapped leaf by leaf to ours."""

from collections.abc import Mapping

import numpy as np
from flax.traverse_util import unflatten_dict

from pizero_jax.types import InputError, Params


def as_is(x: np.ndarray) -> np.ndarray:
    return x


def part(i: int):
    """Openpi stacks keys with values, and gate with up, on the axis behind the layers."""
    return lambda x: x[:, i]


def expert_names(ours: str, suffix: str) -> dict[str, tuple[str, object]]:
    """One Gemma expert; openpi marks the second one by `_1`."""
    layers = "PaliGemma/llm/layers"
    return {
        f"{ours}/layers/attention/q": (f"{layers}/attn/q_einsum{suffix}/w", as_is),
        f"{ours}/layers/attention/k": (f"{layers}/attn/kv_einsum{suffix}/w", part(0)),
        f"{ours}/layers/attention/v": (f"{layers}/attn/kv_einsum{suffix}/w", part(1)),
        f"{ours}/layers/attention/out": (f"{layers}/attn/attn_vec_einsum{suffix}/w", as_is),
        f"{ours}/layers/feed_forward/gate": (f"{layers}/mlp{suffix}/gating_einsum", part(0)),
        f"{ours}/layers/feed_forward/up": (f"{layers}/mlp{suffix}/gating_einsum", part(1)),
        f"{ours}/layers/feed_forward/down": (f"{layers}/mlp{suffix}/linear", as_is),
        f"{ours}/layers/attention_norm/scale": (f"{layers}/pre_attention_norm{suffix}/scale", as_is),
        f"{ours}/layers/mlp_norm/scale": (f"{layers}/pre_ffw_norm{suffix}/scale", as_is),
        f"{ours}/final_norm/scale": (f"PaliGemma/llm/final_norm{suffix}/scale", as_is),
    }


def vision_names() -> dict[str, tuple[str, object]]:
    encoder, block = "PaliGemma/img/Transformer", "PaliGemma/img/Transformer/encoderblock"
    names = {
        "vision/stem/kernel": ("PaliGemma/img/embedding/kernel", as_is),
        "vision/stem/bias": ("PaliGemma/img/embedding/bias", as_is),
        "vision/positions": ("PaliGemma/img/pos_embedding", lambda x: x[0]),
    }
    for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
        projection = f"{block}/MultiHeadDotProductAttention_0/{theirs}"
        names[f"vision/layers/attention/{ours}"] = (f"{projection}/kernel", as_is)
        names[f"vision/layers/attention/{ours}_bias"] = (f"{projection}/bias", as_is)
    for ours, theirs, leaves in (
        ("layers/norm", f"{block}/LayerNorm_0", ("scale", "bias")),
        ("layers/mlp_norm", f"{block}/LayerNorm_1", ("scale", "bias")),
        ("layers/up", f"{block}/MlpBlock_0/Dense_0", ("kernel", "bias")),
        ("layers/down", f"{block}/MlpBlock_0/Dense_1", ("kernel", "bias")),
        ("final_norm", f"{encoder}/encoder_norm", ("scale", "bias")),
        ("head", "PaliGemma/img/head", ("kernel", "bias")),
    ):
        for leaf in leaves:
            names[f"vision/{ours}/{leaf}"] = (f"{theirs}/{leaf}", as_is)
    return names


def pi0_names() -> dict[str, tuple[str, object]]:
    """Our path -> (openpi's path, the part of its array that we keep)."""
    names = {"embedding": ("PaliGemma/llm/embedder/input_embedding", as_is)}
    names |= vision_names() | expert_names("language", "") | expert_names("expert", "_1")
    for ours, theirs in (
        ("state_in", "state_proj"),
        ("action_in", "action_in_proj"),
        ("action_time_in", "action_time_mlp_in"),
        ("action_time_out", "action_time_mlp_out"),
        ("action_out", "action_out_proj"),
    ):
        for leaf in ("kernel", "bias"):
            names[f"{ours}/{leaf}"] = (f"{theirs}/{leaf}", as_is)
    return names


def pi0_params(arrays: Mapping[str, np.ndarray]) -> Params:
    """Our pi0 parameters from openpi's arrays by flattened path.

    Raises:
      InputError: naming the paths that are missing and those that nothing uses.
    """
    names = pi0_names()
    theirs = {path for path, _ in names.values()}
    missing, unused = sorted(theirs - set(arrays)), sorted(set(arrays) - theirs)
    if missing or unused:
        raise InputError(f"these are not openpi's pi0 weights: missing {missing}, unused {unused}")
    return unflatten_dict({tuple(ours.split("/")): take(arrays[path]) for ours, (path, take) in names.items()})
