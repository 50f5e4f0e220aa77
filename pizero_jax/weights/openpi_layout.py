"""openpi's names and layouts, leaf by leaf, from ours and to ours.

openpi stacks keys with values, and gate with up, on the axis behind the layers; its second expert ends in `_1`.
"""

import re

import jax
import numpy as np

from pizero_jax.errors import InputError
from pizero_jax.types import Params
from pizero_jax.weights import source as sources
from pizero_jax.weights.source import Leaf

VISION = "PaliGemma/img/Transformer/encoderblock"
LAYERS = "PaliGemma/llm/layers"

# Our path, a pattern -> openpi's. {s} is "" for the backbone and "_1" for the expert.
_BY_NAME = {
    r"backbone/embedding": "PaliGemma/llm/embedder/input_embedding",
    r"backbone/vision/stem/(\w+)": r"PaliGemma/img/embedding/\1",
    r"backbone/vision/positions": "PaliGemma/img/pos_embedding",
    r"backbone/vision/layers/attention/q/(\w+)": rf"{VISION}/MultiHeadDotProductAttention_0/query/\1",
    r"backbone/vision/layers/attention/k/(\w+)": rf"{VISION}/MultiHeadDotProductAttention_0/key/\1",
    r"backbone/vision/layers/attention/v/(\w+)": rf"{VISION}/MultiHeadDotProductAttention_0/value/\1",
    r"backbone/vision/layers/attention/out/(\w+)": rf"{VISION}/MultiHeadDotProductAttention_0/out/\1",
    r"backbone/vision/layers/norm/(\w+)": rf"{VISION}/LayerNorm_0/\1",
    r"backbone/vision/layers/mlp_norm/(\w+)": rf"{VISION}/LayerNorm_1/\1",
    r"backbone/vision/layers/up/(\w+)": rf"{VISION}/MlpBlock_0/Dense_0/\1",
    r"backbone/vision/layers/down/(\w+)": rf"{VISION}/MlpBlock_0/Dense_1/\1",
    r"backbone/vision/final_norm/(\w+)": r"PaliGemma/img/Transformer/encoder_norm/\1",
    r"backbone/vision/head/(\w+)": r"PaliGemma/img/head/\1",
    r"{e}/layers/attention/q/kernel": f"{LAYERS}/attn/q_einsum{{s}}/w",
    r"{e}/layers/attention/[kv]/kernel": f"{LAYERS}/attn/kv_einsum{{s}}/w",
    r"{e}/layers/attention/out/kernel": f"{LAYERS}/attn/attn_vec_einsum{{s}}/w",
    r"{e}/layers/attention/q/(lora_\w)": rf"{LAYERS}/attn/q_einsum{{s}}/\1",
    r"{e}/layers/attention/[kv]/(lora_\w)": rf"{LAYERS}/attn/kv_einsum{{s}}/\1",
    r"{e}/layers/attention/out/(lora_\w)": rf"{LAYERS}/attn/attn_vec_einsum{{s}}/\1",
    r"{e}/layers/feed_forward/(?:gate|up)/kernel": f"{LAYERS}/mlp{{s}}/gating_einsum",
    r"{e}/layers/feed_forward/down/kernel": f"{LAYERS}/mlp{{s}}/linear",
    r"{e}/layers/feed_forward/(?:gate|up)/(lora_\w)": rf"{LAYERS}/mlp{{s}}/gating_einsum_\1",
    r"{e}/layers/feed_forward/down/(lora_\w)": rf"{LAYERS}/mlp{{s}}/linear_\1",
    r"{e}/layers/attention_norm/scale": f"{LAYERS}/pre_attention_norm{{s}}/scale",
    r"{e}/layers/mlp_norm/scale": f"{LAYERS}/pre_ffw_norm{{s}}/scale",
    r"{e}/layers/attention_norm/modulation/(\w+)": rf"{LAYERS}/pre_attention_norm{{s}}/Dense_0/\1",
    r"{e}/layers/mlp_norm/modulation/(\w+)": rf"{LAYERS}/pre_ffw_norm{{s}}/Dense_0/\1",
    r"{e}/final_norm/scale": "PaliGemma/llm/final_norm{s}/scale",
    r"{e}/final_norm/modulation/(\w+)": r"PaliGemma/llm/final_norm{s}/Dense_0/\1",
    r"state_in/(\w+)": r"state_proj/\1",
    r"action_in/(\w+)": r"action_in_proj/\1",
    r"action_out/(\w+)": r"action_out_proj/\1",
    r"action_time_in/(\w+)": r"action_time_mlp_in/\1",
    r"action_time_out/(\w+)": r"action_time_mlp_out/\1",
    r"time_in/(\w+)": r"time_mlp_in/\1",
    r"time_out/(\w+)": r"time_mlp_out/\1",
}
_NAMES = {
    pattern.replace("{e}", expert): theirs.replace("{s}", suffix)
    for pattern, theirs in _BY_NAME.items()
    for expert, suffix in (("backbone/language", ""), ("expert", "_1"))
}
_STACKED = {"k": 0, "v": 1, "gate": 0, "up": 1}  # module -> its place on axis 1, behind the layers


def their_name(path: str) -> str:
    """openpi's path of our leaf; InputError if it has none."""
    for pattern, theirs in _NAMES.items():
        if match := re.fullmatch(pattern, path):
            return match.expand(theirs)
    raise InputError(f"openpi has no place for the parameter {path}: its models have no such part")


def leaf(path: str) -> Leaf:
    """How our leaf is cut from openpi's."""
    module = path.split("/")[-2]
    if path == "backbone/vision/positions":
        return Leaf((their_name(path),), lambda x: x[0])
    if module in _STACKED and not path.startswith("backbone/vision"):
        return Leaf((their_name(path),), lambda x: x[:, _STACKED[module]])
    return Leaf((their_name(path),), lambda x: x)


def to_openpi(params: Params) -> dict[str, jax.Array]:
    """Our parameters, or their gradients or moments, under openpi's names and in its layouts."""
    theirs, stacks = {}, {}
    for path, x in sources.flat(params).items():
        name, module = their_name(path), path.split("/")[-2]
        if path == "backbone/vision/positions":
            theirs[name] = x[None]
        elif module in _STACKED and not path.startswith("backbone/vision"):
            stacks.setdefault(name, {})[_STACKED[module]] = x
        else:
            theirs[name] = x
    stack = np.stack if all(isinstance(x, np.ndarray) for x in jax.tree.leaves(stacks)) else jax.numpy.stack
    return theirs | {name: stack([parts[0], parts[1]], axis=1) for name, parts in stacks.items()}
