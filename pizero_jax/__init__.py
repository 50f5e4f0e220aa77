"""Train, evaluate and study vision-language-action policies of the pi0 family in JAX/Flax."""


def __getattr__(name: str):
    """`pizero_jax.load`, imported when it is first asked for: it brings JAX along."""
    if name == "load":
        from pizero_jax.serve.policy import load

        return load
    raise AttributeError(f"module 'pizero_jax' has no attribute {name!r}")
