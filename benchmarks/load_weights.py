"""Host memory and time of loading openpi's weights of any size onto eight forced CPU devices with fsdp = 8.

    python -m benchmarks.load_weights --config=configs/pi0.py --folder=/tmp/weights

Writes a checkpoint of random bfloat16 values with Orbax's defaults by one process, unless the folder has one, and loads
it in another; each process reports the most memory that it held (VmHWM).
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from absl import flags
from ml_collections import config_flags

import launch

_CONFIG = config_flags.DEFINE_config_file("config")
_FOLDER = flags.DEFINE_string("folder", None, "Where the checkpoint is written to; needs its size on disk.")
_PART = flags.DEFINE_enum("part", "all", ["all", "write", "load"], "What this process does.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON instead of a sentence.")

DEVICES = 8


def main() -> None:
    folder = Path(_FOLDER.value or "/tmp/pizero_jax_weights")
    if _PART.value != "all":
        print(json.dumps(write(folder) if _PART.value == "write" else load(folder)))
        return
    if not (folder / "params").exists():
        print("writing", run("write", folder), file=sys.stderr)
    result = run("load", folder)
    sentence = (
        "{parameters:,} parameters, {bytes:,} bytes: at most {peak_bytes:,} bytes of host memory, {ratio:.2f} times as "
        "much; {seconds:.0f} s; at most {device_bytes:,} bytes on one of {devices} devices"
    )
    print(json.dumps(result) if _JSON.value else sentence.format(**result))


def run(part: str, folder: Path) -> dict:
    """What this module prints in a process of its own."""
    flag = f"--xla_force_host_platform_device_count={DEVICES}"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}"}
    command = [sys.executable, "-m", "benchmarks.load_weights", *sys.argv[1:], f"--folder={folder}", f"--part={part}"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def write(folder: Path) -> dict:
    import ml_dtypes
    import numpy as np
    import orbax.checkpoint as ocp
    from flax.traverse_util import unflatten_dict

    rng = np.random.default_rng(0)

    def random(x) -> np.ndarray:
        bits = rng.integers(0, 2**16, x.shape, np.uint16)
        return (bits & 0x807F | 0x3C80).view(ml_dtypes.bfloat16)  # +-0.0156 to 0.031, all mantissas

    tree = unflatten_dict({f"{path}/value": random(x) for path, x in shapes().items()}, sep="/")
    checkpointer = ocp.PyTreeCheckpointer()
    checkpointer.save(folder / "params", {"params": tree})
    return {"peak_bytes": peak_bytes()}


def load(folder: Path) -> dict:
    import jax

    from pizero_jax import mesh as meshes
    from pizero_jax.config import MeshConfig
    from pizero_jax.weights import openpi

    mesh = meshes.make_mesh(MeshConfig(data=1, fsdp=DEVICES, tensor=1))
    start = time.perf_counter()
    leaves = jax.tree.leaves(openpi.read(folder, mesh=mesh).params)
    seconds = time.perf_counter() - start
    total = sum(x.nbytes for x in leaves)
    on_device = [sum(x.addressable_shards[i].data.nbytes for x in leaves) for i in range(DEVICES)]
    return {
        "parameters": sum(x.size for x in leaves),
        "bytes": total,
        "peak_bytes": peak_bytes(),
        "ratio": peak_bytes() / total,
        "device_bytes": max(on_device),
        "devices": DEVICES,
        "seconds": seconds,
    }


def shapes() -> dict:
    """Of openpi's arrays for the config's policy, by path."""
    import jax

    from pizero_jax import policies
    from pizero_jax.config import TrainConfig, build
    from pizero_jax.weights import openpi

    config = build(TrainConfig, _CONFIG.value)
    policy = policies.make(config.policy, config.loss)
    return jax.eval_shape(openpi.to_openpi, jax.eval_shape(policy.init, jax.random.key(0)))


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    launch.run(main)
