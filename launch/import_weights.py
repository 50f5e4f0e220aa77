"""Makes a run's folder of someone else's weights, to train from (`config.init.weights`) or to act with.

    python -m launch.import_weights --config=configs/pi0.py --source=gs://openpi-assets/checkpoints/pi0_base \
        --workdir=runs/pi0_base [--format=openpi|lerobot|paligemma] [--raw] [--config.data.tokenizer=...]

The sizes of the model come from the arrays and are shown where they differ from the config; all else is the config's.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

import launch
from pizero_jax import mesh as meshes
from pizero_jax.config import BackboneConfig, LossConfig, PolicyConfig, TrainConfig, build, differences
from pizero_jax.data import normalize
from pizero_jax.errors import InputError
from pizero_jax.provenance import versions
from pizero_jax.report import tables
from pizero_jax.train.checkpoint import Checkpoints
from pizero_jax.types import Params
from pizero_jax.weights import huggingface, openpi, paligemma
from pizero_jax.weights.download import fetch

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0.py.")
SOURCE = flags.DEFINE_string("source", None, "Folder or file of the weights; gs://, https:// and hf:// are fetched.")
FORMAT = flags.DEFINE_enum(
    "format", "openpi", ["openpi", "lerobot", "paligemma"], "Whose weights; PaliGemma's as .npz or safetensors."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder to make.")
RAW = flags.DEFINE_bool("raw", False, "Take openpi's raw parameters in place of the averaged ones that act.")
ASSET = flags.DEFINE_string("asset", None, "Whose statistics to take, in openpi's assets/, such as owner/name.")
JSON = flags.DEFINE_bool("json", False, "Print the summary as JSON.")

# What the arrays tell of a policy; all other fields are the config's.
TOLD = ("image_size", "vision", "attention", "language", "expert", "action_dim", "state_dim", "lora")


def main() -> None:
    config = build(TrainConfig, CONFIG.value)
    if not SOURCE.value or not WORKDIR.value:
        raise InputError("--source and --workdir are needed: where the weights lie, and the folder to make of them")
    if not isinstance(config.policy, BackboneConfig):
        raise InputError(f"config.policy.name = {config.policy.name!r} has no PaliGemma, whose weights these are")
    workdir = Path(WORKDIR.value)
    if workdir.exists() and any(workdir.iterdir()):
        raise InputError(f"--workdir={workdir} is not empty; choose another folder")
    summary = import_weights(config, fetch(SOURCE.value), workdir)
    print(json.dumps(summary, indent=2) if JSON.value else table(summary))


def import_weights(config: TrainConfig, source: Path, workdir: Path) -> dict[str, Any]:
    """Reads `source` onto the config's mesh and writes it as step 0 of a run."""
    mesh = meshes.make_mesh(config.mesh)
    statistics: dict = {}
    if FORMAT.value == "openpi":
        weights = openpi.read(source, raw=RAW.value, mesh=mesh)
        policy, loss, params = weights.config, weights.loss, weights.params
        statistics = openpi_statistics(source)
    elif FORMAT.value == "lerobot":
        policy, loss, params = huggingface.read(source, mesh=mesh)
    else:
        read = paligemma.read if source.suffix == ".npz" else huggingface.read_backbone
        policy, loss, params = config.policy, config.loss, read(source, config.policy, mesh=mesh)
    return write(config, policy, loss, params, statistics, source, workdir)


def write(
    config: TrainConfig,
    told: PolicyConfig,
    loss: LossConfig,
    params: Params,
    statistics: dict[str, normalize.Statistics],
    source: Path,
    workdir: Path,
) -> dict[str, Any]:
    adopted = adopt(config, told, loss)
    changed = differences(dataclasses.asdict(config), dataclasses.asdict(adopted))
    metadata = {
        "config": dataclasses.asdict(adopted),
        "statistics": normalize.to_dict(statistics),
        "action_tokens": None,
        "versions": versions(),
        "source": str(source),
    }
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(workdir, config.checkpoint)
    checkpoints.save_params(params, metadata)
    checkpoints.close()
    (workdir / "config.json").write_text(json.dumps(metadata, indent=2) + "\n")
    leaves = jax.tree.leaves(params)
    return {
        "workdir": str(workdir),
        "policy": adopted.policy.name,
        "parameters": sum(x.size for x in leaves),
        "bytes": sum(x.nbytes for x in leaves),
        "types": sorted({str(x.dtype) for x in leaves}),
        "statistics": sorted(statistics),
        "taken from the arrays": changed,
    }


def adopt(config: TrainConfig, told: PolicyConfig, loss: LossConfig) -> TrainConfig:
    """The config with what the arrays tell, and with openpi's ways that they were trained with.

    Raises:
      InputError: they are of another policy than the config's.
    """
    ours = config.policy
    same_arrays = {ours.name, {"pi05_insulated": "pi05"}.get(ours.name)}
    if told.name not in same_arrays:
        raise InputError(
            f"--source={SOURCE.value} holds {told.name!r}; --config has config.policy.name = {ours.name!r}: "
            f"take a config such as configs/{told.name}.py"
        )
    fields = {field.name for field in dataclasses.fields(ours)}
    values = {name: getattr(told, name) for name in TOLD if name in fields}
    if not told.lora.rules:
        values["lora"] = ours.lora  # adapters start beside weights that have none
    if "openpi_positions" in fields:
        values["openpi_positions"] = told.openpi_positions
    padding = dataclasses.replace(config.loss, openpi_padding=loss.openpi_padding)
    return dataclasses.replace(config, policy=dataclasses.replace(ours, **values), loss=padding)


def openpi_statistics(source: Path) -> dict[str, normalize.Statistics]:
    """Those in `assets/<asset>/norm_stats.json`, beside the parameters; an asset is called `name` or `owner/name`."""
    folder = source if (source / "assets").is_dir() else source.parent
    assets, asked = folder / "assets", ASSET.value
    found = {file.parent.relative_to(assets).as_posix(): file for file in sorted(assets.rglob("norm_stats.json"))}
    if asked is None and not found:
        return {}
    named = [name for name in found if asked in (None, name)]
    named = named or [name for name in found if name.endswith(f"/{asked}")]
    if len(named) != 1:
        raise InputError(f"--asset={asked}: there are statistics of {', '.join(found) or 'none'} in {folder}")
    return normalize.load(str(found[named[0]]))


def table(summary: dict[str, Any]) -> str:
    changed = summary["taken from the arrays"]
    values = {name: x for name, x in summary.items() if name != "taken from the arrays"}
    rows = [{"": name, "value": f"{x:,}" if isinstance(x, int) else x} for name, x in values.items()]
    told = ["taken from the arrays, and different in --config:", *(f"  {line}" for line in changed), ""]
    use = f"train from it with --config.init.weights={summary['workdir']}"
    return "\n".join([tables.markdown(rows), "", *(told if changed else []), use])


if __name__ == "__main__":
    launch.run(main)
