"""Trains a policy on an RLDS data set.

    python -m launch.train --config=configs/pi0_metaworld.py --workdir=runs/demo [--config.optimizer.peak=3e-4 ...]

Writes `config.json`, `metrics.jsonl`, `curves.png` and `checkpoints/` into the workdir; --resume goes on from the
newest checkpoint as if the run had never stopped.
"""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import jax
from absl import flags
from flax import linen as nn
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

import launch
from pizero_jax import mesh as meshes
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build, differences
from pizero_jax.data import loader, normalize
from pizero_jax.errors import InputError
from pizero_jax.provenance import versions
from pizero_jax.report import parameters, tables
from pizero_jax.report.figures import learning_curves
from pizero_jax.train import checkpoint, freeze, initial, loop
from pizero_jax.types import Policy
from pizero_jax.weights.merge import equations

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0_metaworld.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run.")
RESUME = flags.DEFINE_bool("resume", False, "Go on from the newest checkpoint in the workdir.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove what the workdir holds of an earlier run.")
JSON = flags.DEFINE_bool("json", False, "Print the last metrics as JSON.")

# What a resumed run may change: everything else would make it another run.
FREE = ("steps", "mesh", "validation", "checkpoint", "log", "wandb", "env", "init", "data.path", "data.index_dir",
        "data.threads", "data.prefetch")  # fmt: skip


def main() -> None:
    config = build(TrainConfig, CONFIG.value)
    if not WORKDIR.value:
        raise InputError("--workdir is missing; name the folder of this run, such as --workdir=runs/demo")
    metrics = train(config, Path(WORKDIR.value), resume=RESUME.value, overwrite=OVERWRITE.value)
    if JSON.value:
        print(json.dumps(metrics))


def train(config: TrainConfig, workdir: Path, *, resume: bool = False, overwrite: bool = False) -> dict[str, float]:
    """Trains, and returns the last value of each metric."""
    prepare(workdir, config, resume=resume, overwrite=overwrite)
    data = loader.open_data(config, saved_action_tokens(workdir) if resume else None)
    mesh = meshes.make_mesh(config.mesh)
    meshes.check_batch_size(config.batch_size, mesh)
    policy = policies.make(config.policy, config.loss)
    given = None
    if config.init.weights:
        given = initial.given_params(config.init.weights, nn.unbox(jax.eval_shape(policy.init, jax.random.key(0))))
    if len(data.sources) > 1:
        print(mixture_table(data, config), file=sys.stderr)
    if config.freeze.params or config.policy.lora.rules:
        print(learning_table(policy, config), file=sys.stderr)
    metadata = {
        "config": dataclasses.asdict(config),
        "statistics": normalize.to_saved(data.statistics),
        "action_tokens": data.action_tokens and data.action_tokens.to_dict(),
        "versions": versions() | {"devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}"},
    }
    workdir.mkdir(parents=True, exist_ok=True)
    if overwrite:
        clear(workdir)
    (workdir / "config.json").write_text(json.dumps(metadata, indent=2) + "\n")

    process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    size = {"batch_size": config.batch_size} | process
    threads = {"threads": config.data.threads, "prefetch": config.data.prefetch}
    loop.fit(
        config,
        policy,
        mesh,
        lambda start: loader.batches(data, seed=config.seed, start=start, **size, **threads),
        loader.validation_batches(data, count=config.validation.batches, **size),
        workdir,
        metadata,
        given=given,
        # On the host, with the whole batch: of one process.
        decode=loader.decoder(data) if policy.logits and jax.process_count() == 1 else None,
        sets=tuple(source.name for source in data.sources),
    )
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    learning_curves(records, workdir / "curves.png")
    return {name: value for record in records for name, value in record.items()}


def mixture_table(data: loader.Data, config: TrainConfig) -> str:
    """How often training sees each data set of a mixture."""
    seen = config.steps * config.batch_size
    rows = [
        {
            "data set": source.name,
            "episodes": f"{len(source.train.episodes):,}",
            "frames": f"{len(source.train):,}",
            "share of rows": f"{source.share:.2%}",
            "epochs": f"{seen * source.share / len(source.train):.2f}",
            "held-out frames": f"{len(source.val):,}" if source.val else "none",
        }
        for source in data.sources
    ]
    return tables.markdown(rows)


def learning_table(policy: Policy, config: TrainConfig) -> str:
    """What learns of each part; InputError if a pattern of `config.freeze` or of an adapter fits nothing."""
    modules = equations(policy)
    for i, rule in enumerate(config.policy.lora.rules):
        if not any(re.fullmatch(rule.modules, module) for module in modules):
            where = f"config.policy.lora.rules[{i}].modules = {rule.modules!r}"
            raise InputError(f"{where} fits no module, such as {sorted(modules)[0]!r}; launch.describe shows all")
    leaves = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
    learning, frozen = (flatten_dict(part, sep="/") for part in freeze.split(leaves, config.freeze))
    return parameters.by_part(parameters.rows(learning, frozen))


def saved_action_tokens(workdir: Path) -> dict | None:
    """The action tokenizer that a run began with."""
    file = workdir / "config.json"
    return json.loads(file.read_text()).get("action_tokens") if file.exists() else None


def prepare(workdir: Path, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Makes sure that nothing in the workdir is lost or mixed up; changes nothing.

    Raises:
      InputError: the workdir is in use and no flag says what to do, or its run cannot be resumed with this config.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    used = workdir.exists() and any(workdir.iterdir())
    is_run = (workdir / "config.json").exists() or (workdir / checkpoint.FOLDER).is_dir()
    if used and not (resume or overwrite):
        raise InputError(f"--workdir={workdir} is not empty; --resume goes on, --overwrite starts again")
    if used and not is_run:
        raise InputError(f"--workdir={workdir} holds something else than a run; choose another folder")
    if resume and (workdir / "config.json").exists():
        saved = json.loads((workdir / "config.json").read_text())
        if "source" in saved:
            raise InputError(f"--workdir={workdir} holds imported weights; start another run from them with "
                             f"--config.init.weights={workdir}")  # fmt: skip
        paths = [f"data.sets.{name}.path" for name in config.data.sets]
        changed = differences(saved["config"], dataclasses.asdict(config), free=[*FREE, *paths])
        if changed:
            raise InputError(f"--workdir={workdir} was made with another config: {'; '.join(changed)}. Restore these, "
                             "or start another run.")  # fmt: skip


def clear(workdir: Path) -> None:
    """Removes what a run writes, and nothing else."""
    shutil.rmtree(workdir / checkpoint.FOLDER, ignore_errors=True)
    for file in ("metrics.jsonl", "curves.png", "evaluation.json"):
        (workdir / file).unlink(missing_ok=True)


if __name__ == "__main__":
    launch.run(main)
