"""Train, evaluate and study vision-language-action policies of the pi0 family in JAX/Flax."""

import importlib


def __getattr__(name: str):
    """`pizero_jax.load` and `pizero_jax.weights`, imported when they are first asked for: they bring JAX along."""
    if name == "load":
        from pizero_jax.serve.policy import load

        return load
    if name == "weights":
        return importlib.import_module("pizero_jax.weights")
    raise AttributeError(f"module 'pizero_jax' has no attribute {name!r}")
