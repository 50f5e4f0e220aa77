"""Training and acting with the policies that are not openpi's, as the commands do both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAST = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}

NIGHTLY = bool(os.environ.get("PIZERO_NIGHTLY"))
OTHERS = ("diffusion_policy", "diffusion_transformer", "mean_flow", "pi0_small", "regression", "shortcut")
NAMES = ("act_metaworld", *(f"{name}_metaworld" for name in OTHERS if NIGHTLY))

# One process, so that its imports are paid once.
SCRIPT = """
import importlib, json, sys
from pathlib import Path
import jax, numpy as np
import pizero_jax
from launch.train import train
from pizero_jax.config import TrainConfig, build

folder, data = map(Path, sys.argv[1:3])
picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
seen = {"images": {"image": picture}, "state": np.zeros(4)}
found = {}
for name in sys.argv[3:]:
    c = importlib.import_module(f"configs.{name}").get_config()
    c.data.path, c.wandb.mode, c.compile_cache = str(data), "disabled", ""
    c.data.cameras, c.policy.cameras, c.policy.image_size = dict(image="image"), ("image",), 32
    c.steps = c.checkpoint.every = c.validation.every = 3
    c.batch_size, c.log.every, c.validation.batches, c.policy.chunk, c.env.execute = 4, 1, 1, 4, 2
    if "vision" in c.policy:
        c.policy.unroll = 1
        c.policy.vision.update(dict(stem="patch", width=16, depth=1, mlp=16, heads=2))
        c.policy.attention.update(dict(depth=1, heads=2, head_dim=8))
        c.policy.language.update(dict(width=16, mlp=16))
        c.policy.expert.update(dict(width=16, mlp=16))
    elif name.startswith("pi0_small"):
        c.policy.vision.update(dict(stem="patch", width=16, depth=1, mlp=16, heads=2))
        for part in ("language", "observation", "expert"):
            c.policy[part].update(dict(width=16, depth=1, heads=2, mlp=16))
    else:
        c.policy.resnet.update(dict(widths=(16,), depth=1))
    if name.startswith("diffusion_transformer"):
        c.policy.transformer.update(dict(width=16, depth=1, heads=2, mlp=16))
    if name.startswith("diffusion_policy"):
        c.policy.unet.update(dict(widths=(16,), time=8))
    if name.startswith("act"):
        c.policy.update(dict(width=16, mlp=16, heads=2, encoder_depth=1, posterior_depth=1))
    finished, metrics = train(build(TrainConfig, c), folder / name)
    trained = pizero_jax.load(folder / name)
    chunks = [trained.infer(seen, "press it", jax.random.key(i)).tolist() for i in (0, 0, 1)]
    found[name] = {"policy": list(c.policy), "finished": finished, "metrics": metrics, "chunks": chunks}
(folder / "found.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_each_trains_and_acts_from_its_checkpoint(tmp_path):
    command = [sys.executable, "-c", SCRIPT, tmp_path, ROOT / "tests/data/rlds_tiny", *NAMES]
    result = subprocess.run(command, cwd=ROOT, env=FAST, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert tuple(found) == NAMES
    for name, run in found.items():
        metrics = run["metrics"]
        assert run["finished"]
        assert metrics["step"] == 3
        assert 0 < metrics["loss"] < 100
        assert 0 < metrics["val/action_error"] < 100, "what has no velocity is sampled in validation, too"
        assert metrics["tflops_per_chip"] > 0
        assert (tmp_path / name / "chunks.png").stat().st_size > 500
        first, again, other = run["chunks"]
        assert len(first) == len(first[0]) == 4
        assert first == again
        assert (first != other) == ("num_steps" in run["policy"]), "a regression draws nothing"
    joint = found["act_metaworld"]["metrics"]
    assert joint["loss"] == pytest.approx(joint["loss_actions"] + joint["loss_kl"], rel=1e-5)
    assert {"val/loss_actions", "val/loss_kl"} <= joint.keys()
