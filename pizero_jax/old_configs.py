"""Configs that were saved before some keys existed."""

from collections.abc import Mapping
from typing import Any

ADDED: dict[str, Any] = {  # key -> the value that means what the code did before; newer keys at the end
    "data.changes": (),
    "data.other_instructions": (),
    "data.hz": 0.0,
    "data.mixture": "",
    "data.sets": {},
    "data.weighting": "given",
    "data.chunk_hz": 0.0,
    "data.history": 1,
    "data.unlabelled": "keep",
    "data.on_corrupt": "raise",
    "data.cache_gb": 4.0,
    "data.index_dir": "~/.cache/pizero_jax",
    "data.dropout": {"cameras": 0.0, "state": 0.0, "prompt": 0.0},
    "checkpoint.keep_every": 0,
    "checkpoint.best": "",
    "checkpoint.best_mode": "min",
    "distributed": {"start_timeout": 600, "heartbeat": 30},
    "compile_cache": "~/.cache/pizero_jax/compiled",  # there was none; it changes no result
    "accumulation": 1,
    "optimizer.rates": (),
    "optimizer.ema_dtype": "float32",
    "nonfinite": {"limit": 10},
    "profile": {"steps": ()},
    "wandb.group": "",
    "wandb.tags": (),
    "loss.path": "straight",
    "loss.prediction": "u",
    "loss.time": "shifted_beta",
    "policy.solver": "euler",
}
_BESIDE = {"policy.solver": "num_steps"}  # key -> another of its group, without which it does not belong there


def completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config with the keys that it lacks, and a name for what was once a bool; users have to write all."""
    config = dict(saved)
    for path, value in ADDED.items():
        *groups, key = path.split(".")
        inner = config
        for group in groups:
            inner[group] = dict(inner.get(group, {}))  # a copy: what was given stays as it is
            inner = inner[group]
        if _BESIDE.get(path, key) in {key, *inner}:
            inner.setdefault(key, value)
    if isinstance(remat := config.get("policy", {}).get("remat"), bool):
        config["policy"] = config["policy"] | {"remat": "full" if remat else "none"}
    return config
