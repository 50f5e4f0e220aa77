"""`config.json` as transformers and lerobot write it, and the policy's config that belongs to it and to the arrays."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging

from pizero_jax.config import (
    AttentionConfig,
    ExpertConfig,
    FlowConfig,
    LanguageConfig,
    Pi0Config,
    Pi05Config,
    PolicyConfig,
    VisionConfig,
)
from pizero_jax.errors import InputError
from pizero_jax.nn.lora import NONE
from pizero_jax.weights.huggingface_layout import Names
from pizero_jax.weights.source import Source

IMAGES = "observation.images."  # begins the names of cameras
HEAD_DIM, VISION_HEAD_DIM = 256, 72  # Gemma's and SigLIP So400m's, where nothing tells
GEMMA_2B = dict(depth=18, heads=8, kv_heads=1, head_dim=256, width=2048, mlp=16_384)  # lerobot's only sizes
GEMMA_300M = GEMMA_2B | dict(width=1024, mlp=4096)


def facts_of(path: Path) -> dict[str, Any]:
    """What `config.json` beside the weights says, if there is one; null says nothing.

    Raises:
      InputError: it is not JSON, or another thing than an object, whose features are objects.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    try:
        facts = json.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise InputError(f"{file} holds {json.dumps(facts):.40}; it should hold an object, {{...}}")
    facts = {name: x for name, x in facts.items() if x is not None}
    features = facts.get("input_features", {})
    if not isinstance(features, dict) or not all(isinstance(x, dict) for x in features.values()):
        raise InputError(f"{file}: input_features = {json.dumps(features):.80} should be an object of objects")
    return facts


def cameras_of(features: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The features that are pictures, by their type, or by their name where they have none."""
    told = {name: x.get("type", "VISUAL" if name.startswith(IMAGES) else None) for name, x in features.items()}
    return tuple(name.removeprefix(IMAGES) for name, kind in told.items() if kind == "VISUAL")


def infer(
    source: Source, names: Names, facts: Mapping[str, Any], head_dim: int | None, vision_heads: int | None
) -> Pi0Config | Pi05Config:
    """The config that lerobot's arrays of these shapes belong to; vectors tell sizes where possible."""

    def size(name: str) -> int:
        if name not in source.shapes:
            raise InputError(f"{source.name} does not hold lerobot's weights; nothing was loaded:\n  missing: {name}")
        return math.prod(source.shapes[name].shape)

    def depth(prefix: str) -> int:
        found = (re.match(re.escape(prefix) + r"layers\.(\d+)\.", name) for name in source.shapes)
        return 1 + max(int(match[1]) for match in found if match)

    vision_width = size(f"{names.vision}post_layernorm.weight")
    patch = math.isqrt(size(f"{names.vision}embeddings.patch_embedding.weight") // (3 * vision_width))
    tokens = size(f"{names.vision}embeddings.position_embedding.weight") // vision_width
    width, expert = size(f"{names.language}norm.weight"), size(f"{names.flow}action_in_proj.bias")
    head_dim = head_dim or HEAD_DIM
    attention = f"{names.language}layers.0.self_attn"
    action_dim = size(f"{names.flow}action_out_proj.bias")
    common = dict(
        dtype="bfloat16" if source.shapes[f"{attention}.q_proj.weight"].dtype == jnp.bfloat16 else "float32",
        remat="full",
        unroll=1,
        cameras=cameras_of(facts.get("input_features", {})) or ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"),
        image_size=patch * math.isqrt(tokens),
        action_dim=action_dim,
        chunk=facts.get("chunk_size", 50),
        solver="euler",
        num_steps=facts.get("num_inference_steps", 10),
        vision=VisionConfig(
            stem="patch",
            patch=patch,
            width=vision_width,
            depth=depth(f"{names.vision}encoder."),
            mlp=size(f"{names.vision}encoder.layers.0.mlp.fc1.bias"),
            heads=vision_heads or max(1, vision_width // VISION_HEAD_DIM),
        ),
        attention=AttentionConfig(
            depth=depth(names.language),
            heads=max(1, size(f"{attention}.q_proj.weight") // (width * head_dim)),
            kv_heads=max(1, size(f"{attention}.k_proj.weight") // (width * head_dim)),
            head_dim=head_dim,
        ),
        language=LanguageConfig(
            width=width,
            mlp=size(f"{names.language}layers.0.mlp.gate_proj.weight") // width,
            vocabulary=size(f"{names.embedding}.weight") // width,
        ),
        expert=ExpertConfig(expert, size(f"{names.expert}layers.0.mlp.gate_proj.weight") // expert),
        lora=NONE,
    )
    prompt_length = facts.get("tokenizer_max_length")
    if any(name.startswith(f"{names.flow}time_mlp") for name in source.shapes):
        told = dict(prompt_length=prompt_length or 200, state_dim=facts.get("max_state_dim", action_dim))
        return Pi05Config(**common, **told, name="pi05")
    told = dict(prompt_length=prompt_length or 48, state_dim=size(f"{names.flow}state_proj.weight") // expert)
    return Pi0Config(**common, **told, name="pi0")


def lerobot_facts(config: FlowConfig, dtype: str) -> dict[str, Any]:
    """lerobot's `config.json`; it knows no other sizes than those published, and is told so."""
    attention = vars(config.attention)
    ours = [attention | vars(config.expert), attention | dict(width=config.language.width, mlp=config.language.mlp)]
    if ours != [GEMMA_300M, GEMMA_2B]:
        logging.warning("lerobot knows the published sizes only, Gemma 300M and 2B; it cannot load these weights as is")

    def feature(kind: str, *shape: int) -> dict[str, Any]:
        return {"type": kind, "shape": list(shape)}

    size = config.image_size
    return {
        "type": "pi0" if config.name == "pi0" else "pi05",
        "input_features": {f"{IMAGES}{name}": feature("VISUAL", 3, size, size) for name in config.cameras}
        | {"observation.state": feature("STATE", config.state_dim)},
        "output_features": {"action": feature("ACTION", config.action_dim)},
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "dtype": dtype,
        "chunk_size": config.chunk,
        "n_action_steps": config.chunk,
        "max_state_dim": config.state_dim,
        "max_action_dim": config.action_dim,
        "num_inference_steps": config.num_steps,
        "image_resolution": [size, size],
        "tokenizer_max_length": config.prompt_length,
    }


def transformers_facts(config: PolicyConfig, dtype: str) -> dict[str, Any]:
    """PaliGemma's `config.json`.

    "<image>" is the first token behind the vocabulary, as in the released ones; ours has no row for it. transformers
    5.5 and 5.23 ask for none, 4.49 does as soon as it embeds token ids by itself.
    """
    language, attention, vision = config.language, config.attention, config.vision
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "torch_dtype": dtype,
        "image_token_index": language.vocabulary,
        "hidden_size": language.width,
        "projection_dim": language.width,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "text_config": {
            "model_type": "gemma",
            "hidden_size": language.width,
            "intermediate_size": language.mlp,
            "num_hidden_layers": attention.depth,
            "num_attention_heads": attention.heads,
            "num_key_value_heads": attention.kv_heads,
            "head_dim": attention.head_dim,
            "vocab_size": language.vocabulary,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": vision.width,
            "intermediate_size": vision.mlp,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.heads,
            "image_size": config.image_size,
            "patch_size": vision.patch,
            "projection_dim": language.width,
            "vision_use_head": False,
        },
    }
