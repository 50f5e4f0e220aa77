"""Other people's weights: `openpi`, `paligemma` and `huggingface`, imported when they are first asked for."""

import importlib

FORMATS = ("openpi", "paligemma", "huggingface")


def __getattr__(name: str):
    if name in FORMATS:
        return importlib.import_module(f"pizero_jax.weights.{name}")
    raise AttributeError(f"module 'pizero_jax.weights' has no attribute {name!r}")
