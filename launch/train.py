"""Trains a policy on an RLDS data set.

    python -m launch.train --config=configs/pi0_metaworld.py --workdir=runs/demo [--config.optimizer.peak=3e-4 ...]

Writes `config.json`, `metrics.jsonl`, `tensorboard/`, pictures and `checkpoints/` into the workdir; --resume goes on
from the newest checkpoint as if the run had never stopped. On SIGTERM it saves, stops and exits with status 75. On
several hosts the same command runs once on each: docs/many_hosts.md.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from absl import flags, logging
from flax import linen as nn
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

import launch
from launch import workdirs
from pizero_jax import mesh as meshes
from pizero_jax import policies, processes
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import loader, normalize
from pizero_jax.errors import InputError
from pizero_jax.nn.layers import equations
from pizero_jax.provenance import versions
from pizero_jax.report import figures, parameters, tables
from pizero_jax.train import freeze, initial, loop, optimizer, speed
from pizero_jax.train.checkpoint import Checkpoints
from pizero_jax.train.validate import Look
from pizero_jax.types import Policy

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0_metaworld.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run.")
RESUME = flags.DEFINE_bool("resume", False, "Go on from the newest checkpoint in the workdir.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove what the workdir holds of an earlier run.")
JSON = flags.DEFINE_bool("json", False, "Print the last metrics as JSON.")

DIMENSIONS = 8  # of the actions, that pictures of chunks show


def main() -> None:
    config = build(TrainConfig, CONFIG.value)
    if not WORKDIR.value:
        raise InputError("--workdir is missing; name the folder of this run, such as --workdir=runs/demo")
    processes.start(config.distributed)
    if not processes.is_first():
        logging.set_verbosity(logging.ERROR)
    finished, metrics = train(config, Path(WORKDIR.value), resume=RESUME.value, overwrite=OVERWRITE.value)
    if JSON.value and processes.is_first():
        print(json.dumps(metrics))
    if not finished:
        if processes.is_first():
            print("stopped by SIGTERM; --resume goes on", file=sys.stderr)
        sys.exit(processes.RESUME)


def train(
    config: TrainConfig, workdir: Path, *, resume: bool = False, overwrite: bool = False
) -> tuple[bool, dict[str, float]]:
    """Trains; returns whether to the end, and in process 0 the last value of each metric."""
    stop, first, seconds = processes.stop_signal(), processes.is_first(), config.distributed.start_timeout
    processes.from_first(
        "workdir", lambda: workdirs.check(workdir, config, resume=resume, overwrite=overwrite), seconds
    )
    if config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compile_cache).expanduser()))
    data = loader.open_data(config, workdirs.action_tokens(workdir) if resume else None)
    mesh = meshes.make_mesh(config.mesh)
    meshes.check_batch_size(config.batch_size, mesh, config.accumulation)
    policy = policies.make(config.policy, config.loss)
    given = None
    if config.init.weights and not (resume and Checkpoints(workdir).steps):  # nothing is taken from them later
        given = initial.given_params(config.init.weights, nn.unbox(jax.eval_shape(policy.init, jax.random.key(0))))
    if len(data.sources) > 1 and first:
        print(mixture_table(data, config), file=sys.stderr)
    if config.freeze.params or config.policy.lora.rules or config.optimizer.rates:
        table = learning_table(policy, config)
        if first:
            print(table, file=sys.stderr)
    metadata = {
        "config": dataclasses.asdict(config),
        "statistics": normalize.to_saved(data.statistics),
        "action_tokens": data.action_tokens and data.action_tokens.to_dict(),
        "versions": versions() | {"devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}"},
    }
    index, count = meshes.process_rows(mesh)
    size = {"batch_size": config.batch_size, "process_index": index, "process_count": count}
    threads = {"threads": config.data.threads, "prefetch": config.data.prefetch}
    held_out = loader.validation_batches(data, count=config.validation.batches, **size)
    processes.meet("data opened", seconds)
    processes.from_first("workdir made", lambda: workdirs.begin(workdir, metadata, data, overwrite=overwrite), seconds)
    state = loop.fit(
        config,
        policy,
        mesh,
        lambda start: loader.batches(data, seed=config.seed, start=start, **size, **threads),
        held_out,
        workdir,
        metadata,
        given=given,
        # On the host, with the whole batch: of one process.
        decode=loader.decoder(data) if policy.logits and jax.process_count() == 1 else None,
        sets=tuple(source.name for source in data.sources),
        stop=stop,
        names=loader.row_names(data, seed=config.seed, batch_size=config.batch_size),
        draw=lambda looks: draw(looks, data, workdir),
    )
    finished = int(state.step) >= config.steps
    if not first:
        return finished, {}
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    figures.learning_curves(records, workdir / "curves.png")
    last = {name: value for record in records for name, value in record.items()}
    return finished, last | {"goodput": speed.goodput(records)}


def draw(looks: Mapping[str, Look | None], data: loader.Data, workdir: Path) -> dict[str, Path]:
    """Writes chunks that the policy sampled for held-out windows beside the recorded ones, a picture for a data set."""
    pictures = {}
    for source in data.sources:
        look = looks.get(source.name)
        if look is None:
            continue
        shown = np.flatnonzero(look.real.any(axis=(0, 1)))[:DIMENSIONS]
        steps = look.real.any(axis=2)  # real ones of each chunk, [rows, C]
        lengths = steps.sum(axis=1)
        starts = (np.cumsum(lengths) - lengths)[lengths > 0]
        name = f"chunks{source.name and '_'}{source.name}"
        names = [f"{source.config.action}[{a}], normalised" for a in shown]
        path = workdir / f"{name}.png"
        sampled, recorded = (chunks[steps][:, shown] for chunks in (look.sampled, look.recorded))
        figures.predicted_against_recorded(sampled, recorded, starts, names, path)
        pictures[f"val/{name}"] = path
    return pictures


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
    """What learns of each part; InputError if a pattern of `freeze`, of an adapter or of a rate fits nothing."""
    modules = equations(policy)
    for i, rule in enumerate(config.policy.lora.rules):
        if not any(re.fullmatch(rule.modules, module) for module in modules):
            where = f"config.policy.lora.rules[{i}].modules = {rule.modules!r}"
            raise InputError(f"{where} fits no module, such as {sorted(modules)[0]!r}; launch.describe shows all")
    leaves = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
    learning, frozen = freeze.split(leaves, config.freeze)
    optimizer.scales(learning, config.optimizer)
    return parameters.by_part(parameters.rows(flatten_dict(learning, sep="/"), flatten_dict(frozen, sep="/")))


if __name__ == "__main__":
    launch.run(main)
