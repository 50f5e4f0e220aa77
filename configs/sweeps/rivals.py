"""Flow matching and what it is measured against: every policy, small, on the same demonstrations.

python -m launch.sweep --config=configs/pi0_metaworld.py --sweep=configs/sweeps/rivals.py --output=runs/rivals
"""

from collections.abc import Iterator

POLICIES = (
    "pi0",
    "mean_flow",
    "shortcut",
    "pi0_small",
    "regression",
    "tokens",
    "diffusion_policy",
    "diffusion_transformer",
    "act",
)


def sweep() -> Iterator[dict]:
    for name in POLICIES:
        yield {"config": f"configs/{name}_metaworld.py"}
    for prediction in ("eps", "v"):
        yield {
            "config": "configs/pi0_metaworld.py",
            "loss.path": "ddpm_cosine",
            "loss.prediction": prediction,
            "loss.time": "uniform",
            "policy.solver": "ddim",
            "policy.num_steps": 10,
        }
