"""The names and layouts of Hugging Face's weights: PaliGemma as in `transformers`, lerobot's pi0 and pi0.5.

Their matrices are [out, in], with the heads flattened into either, and each layer has arrays of its own. Otherwise the
numbers are ours: norms store the difference of their scale from 1, heads rotate in halves, and picture tokens enter
unscaled beside text times sqrt(width). (Older versions of transformers divide the pictures by sqrt(width), then
multiply everything by it; newer ones multiply text alone.) Prefixes differ between versions and are told by the names.

Source: transformers 4.49, 5.5 and 5.23 (models paligemma, gemma, siglip); lerobot 0.6.1 (policies pi0, pi05, pi_gemma).
"""

import math
import re
from typing import NamedTuple

import jax
import numpy as np

from pizero_jax.errors import InputError
from pizero_jax.types import Params
from pizero_jax.weights import source as sources
from pizero_jax.weights.source import Leaf, Source


class Names(NamedTuple):
    """How the paths of each part begin; of `embedding`, all but ".weight"."""

    embedding: str
    language: str
    vision: str
    projector: str
    expert: str = ""
    flow: str = ""


class Place(NamedTuple):
    """Where one of our modules is: its name, the axes of our matrix, and of theirs, grouped as they flatten them."""

    name: str
    ours: str = ""
    theirs: str = ""


TRANSFORMERS = Names(
    "language_model.model.embed_tokens",
    "language_model.model.",
    "vision_tower.vision_model.",
    "multi_modal_projector.",
)
_PALIGEMMA = "model.paligemma_with_expert.paligemma."
LEROBOT = Names(
    f"{_PALIGEMMA}lm_head",  # tied: lerobot fills the embedding from it
    f"{_PALIGEMMA}model.language_model.",
    f"{_PALIGEMMA}model.vision_tower.vision_model.",
    f"{_PALIGEMMA}model.multi_modal_projector.",
    "model.paligemma_with_expert.gemma_expert.model.",
    "model.",
)

_VISION = {
    "stem": Place("embeddings.patch_embedding", "yxcD", "D c y x"),
    "positions": Place("embeddings.position_embedding", "TD", "T D"),
    "layers/norm": Place("encoder.layers.#.layer_norm1"),
    "layers/attention/q": Place("encoder.layers.#.self_attn.q_proj", "DNH", "NH D"),
    "layers/attention/k": Place("encoder.layers.#.self_attn.k_proj", "DNH", "NH D"),
    "layers/attention/v": Place("encoder.layers.#.self_attn.v_proj", "DNH", "NH D"),
    "layers/attention/out": Place("encoder.layers.#.self_attn.out_proj", "NHD", "D NH"),
    "layers/mlp_norm": Place("encoder.layers.#.layer_norm2"),
    "layers/up": Place("encoder.layers.#.mlp.fc1", "DF", "F D"),
    "layers/down": Place("encoder.layers.#.mlp.fc2", "FD", "D F"),
    "final_norm": Place("post_layernorm"),
}
_DECODER = {
    "layers/attention_norm": Place("layers.#.input_layernorm"),
    "layers/attention_norm/modulation": Place("layers.#.input_layernorm.dense", "DF", "F D"),
    "layers/attention/q": Place("layers.#.self_attn.q_proj", "NDH", "NH D"),
    "layers/attention/k": Place("layers.#.self_attn.k_proj", "KDH", "KH D"),
    "layers/attention/v": Place("layers.#.self_attn.v_proj", "KDH", "KH D"),
    "layers/attention/out": Place("layers.#.self_attn.o_proj", "NHD", "D NH"),
    "layers/mlp_norm": Place("layers.#.post_attention_layernorm"),
    "layers/mlp_norm/modulation": Place("layers.#.post_attention_layernorm.dense", "DF", "F D"),
    "layers/feed_forward/gate": Place("layers.#.mlp.gate_proj", "DF", "F D"),
    "layers/feed_forward/up": Place("layers.#.mlp.up_proj", "DF", "F D"),
    "layers/feed_forward/down": Place("layers.#.mlp.down_proj", "FD", "D F"),
    "final_norm": Place("norm"),
    "final_norm/modulation": Place("norm.dense", "DF", "F D"),
}
_FLOW = {
    "state_in": "state_proj",
    "action_in": "action_in_proj",
    "action_out": "action_out_proj",
    "action_time_in": "action_time_mlp_in",
    "action_time_out": "action_time_mlp_out",
    "time_in": "time_mlp_in",
    "time_out": "time_mlp_out",
}
_PLACES = {  # our module, or array without one -> its part and its place there
    "backbone/embedding": ("embedding", Place("", "VD", "V D")),
    "backbone/vision/head": ("projector", Place("linear", "DF", "F D")),
    **{f"backbone/vision/{module}": ("vision", place) for module, place in _VISION.items()},
    **{f"backbone/language/{module}": ("language", place) for module, place in _DECODER.items()},
    **{f"expert/{module}": ("expert", place) for module, place in _DECODER.items()},
    **{module: ("flow", Place(name, "DF", "F D")) for module, name in _FLOW.items()},
}


def place_of(path: str, names: Names) -> Place:
    """Their whole name of our leaf, "#" being its layer; axes only where a leaf has more than one."""
    module, _, kind = path.rpartition("/")
    part, place = _PLACES.get(path) or _PLACES.get(module) or (None, None)
    if place is None or kind.startswith("lora_"):
        raise InputError(f"Hugging Face's models have no place for the parameter {path}")
    name = f"{getattr(names, part)}{place.name}.{'bias' if kind == 'bias' else 'weight'}"
    return Place(name) if kind in ("bias", "scale") else Place(name, place.ours, place.theirs)


def to_huggingface(params: Params, names: Names) -> dict[str, jax.Array]:
    """Our parameters under their names and in their layouts; views of them, if they are NumPy's."""
    theirs = {}
    for path, x in sources.flat(params).items():
        place = place_of(path, names)
        if "#" in place.name:
            theirs |= {place.name.replace("#", str(i)): to_their_axes(one, place) for i, one in enumerate(x)}
        else:
            theirs[place.name] = to_their_axes(x, place)
    return theirs


def to_their_axes(x: np.ndarray, place: Place) -> np.ndarray:
    if not place.ours:
        return x.reshape(-1)
    size = dict(zip(place.ours, x.shape, strict=True))
    x = x.transpose([place.ours.index(axis) for axis in place.theirs.replace(" ", "")])
    return x.reshape([math.prod(size[axis] for axis in group) for group in place.theirs.split()])


def to_our_axes(x: np.ndarray, place: Place, shape: tuple[int, ...]) -> np.ndarray:
    if not place.ours:
        return x.reshape(shape)
    size, axes = dict(zip(place.ours, shape, strict=True)), place.theirs.replace(" ", "")
    return x.reshape([size[axis] for axis in axes]).transpose([axes.index(axis) for axis in place.ours])


def leaf(path: str, shape: tuple[int, ...], names: Names) -> Leaf:
    """How our leaf of that shape is made of theirs."""
    place = place_of(path, names)
    if "#" not in place.name:
        return Leaf((place.name,), lambda x: to_our_axes(x, place, shape))
    layers = tuple(place.name.replace("#", str(i)) for i in range(shape[0]))
    return Leaf(layers, lambda *xs: np.stack([to_our_axes(x, place, shape[1:]) for x in xs]))


def names_of(source: Source) -> Names:
    """How the names of a source begin.

    Raises:
      InputError: they are neither PaliGemma's nor lerobot's.
    """

    def first(pattern: str) -> str:
        return next((found[1] for name in sorted(source.shapes) if (found := re.match(pattern, name))), "")

    language = first(r"(.*\blanguage_model\.(?:model\.)?)layers\.")
    vision = first(r"(.*\bvision_tower\.(?:vision_model\.)?)encoder\.")
    if not language or not vision:
        raise InputError(
            f"{source.name} holds neither transformers' PaliGemma nor lerobot's pi0 or pi05; its arrays begin with "
            f"{', '.join(sorted({name.split('.')[0] for name in source.shapes})) or 'nothing'}; nothing was loaded"
        )
    embedding = f"{language}embed_tokens"
    if f"{embedding}.weight" not in source.shapes:
        embedding = first(r"((?!.*gemma_expert).*lm_head)\.weight") or embedding
    projector = language.split("language_model.")[0] + "multi_modal_projector."
    expert = first(r"(.*\bgemma_expert\.model\.)layers\.")
    flow = expert.split("paligemma_with_expert.")[0]
    return Names(embedding, language, vision, projector, expert, flow)
