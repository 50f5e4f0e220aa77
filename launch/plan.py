"""Whether a run fits accelerators that need not be here: memory, exchanges, the least time of a step, what to change.

    python -m launch.plan --config=configs/pi0.py --target=h100x8 --config.mesh.fsdp=8 --config.batch_size=256
    python -m launch.plan --config=configs/pi0.py --target=v5e-256 --search [--json]

Compiles the real training step and sampler with the extras `plan-tpu` or `plan-cuda`, which need no accelerator;
without them, with --estimate and with --search, memory is estimated from shapes. Exit status 3: the run does not fit.
docs/plan.md.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from absl import flags
from ml_collections import config_flags

import launch
from launch import plan_text, targets
from pizero_jax import policies
from pizero_jax.config import BackboneConfig, TrainConfig, build
from pizero_jax.errors import InputError
from pizero_jax.train import chips, estimate, knobs, plan
from pizero_jax.train.collectives import exchanges
from pizero_jax.train.flops import act_flops, forward_flops

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0.py.")
TARGET = flags.DEFINE_string("target", targets.THIS, f"{', '.join(targets.TARGETS)}, or this: what is here.")
SEARCH = flags.DEFINE_bool("search", False, "Propose mesh, batch and remat by estimate, and plan with the first.")
ESTIMATE = flags.DEFINE_bool("estimate", False, "Compile nothing: seconds instead of minutes.")
SAMPLER = flags.DEFINE_bool("sampler", True, "Compile the sampler, too.")
JSON = flags.DEFINE_bool("json", False, "Print everything as JSON.")

DOES_NOT_FIT = 3  # exit status
PROPOSALS = 8  # that are shown
MARGIN = 0.85  # of the usable memory, for what is only estimated


def main() -> None:
    config, target = build(TrainConfig, CONFIG.value), targets.find(TARGET.value)
    if not isinstance(config.policy, BackboneConfig):
        raise InputError(f"config.policy.name = {config.policy.name!r}: plans are for policies on a backbone")
    compiles = targets.can_compile(target) and not (ESTIMATE.value or SEARCH.value)
    found = search(config, target) if SEARCH.value else []
    report = examine(found[0].config if found else config, target, compiles=compiles, sampler=SAMPLER.value)
    report["proposals"] = [
        {"flags": x.flags, "peak": x.peak, "samples_per_s": x.samples_per_s} for x in found[:PROPOSALS]
    ]
    print(json.dumps(report, indent=2) if JSON.value else plan_text.page(report))
    if report["fits"] is False:
        sys.exit(DOES_NOT_FIT)


def examine(config: TrainConfig, target: targets.Target, *, compiles: bool, sampler: bool) -> dict[str, Any]:
    """All that is known of a run on the target.

    Raises:
      InputError: the mesh or the batch does not divide.
    """
    mesh = targets.mesh(config.mesh, target) if compiles else targets.abstract_mesh(config.mesh, target)
    run = plan.abstract_run(policies.make, config, mesh)
    held, sizes, chip = plan.held_bytes(run), dict(mesh.shape), chips.chip(target.kind)
    report = {
        "policy": config.policy.name,
        "target": target.name,
        "extra": targets.extra(target),
        "device": target.kind,
        "devices": target.count,
        "mesh": sizes,
        "batch_size": config.batch_size,
        "rows_on_device": config.batch_size // (sizes["data"] * sizes["fsdp"]),
        "accumulation": config.accumulation,
        "remat": config.policy.remat,
        "bytes": held,
    }
    report |= compiled(run, target, held, sampler=sampler) if compiles else estimated(run)
    report |= needs(config, sizes, held, chip)
    usable = chip and chip.memory * chips.usable_share(target.kind)
    worst = max(report["reserved"], report.get("reserved_sampling", 0))
    report |= {"memory": chip and chip.memory, "usable": usable, "worst": worst, "fits": chip and worst <= usable}
    if report["fits"] is False:
        peak = peak_like(worst, run, target)
        effects = knobs.effects(config, target.count, peak)
        remedy = knobs.remedy(config, target.count, peak, usable)
        report["effects"] = [{"flags": effect.change.flags, "peak": effect.peak} for effect in effects]
        report["remedy"] = remedy and [{"flags": step.change.flags, "peak": step.peak} for step in remedy]
    return report


def compiled(run: plan.Run, target: targets.Target, held: dict[str, int], *, sampler: bool) -> dict[str, Any]:
    """What the compiler plans for the step, and for sampling a batch between two steps, with the state in memory."""
    memory, program, seconds = compile_for(target, plan.lower_step(run))
    report = {
        "how": "compiled",
        "compile_s": seconds,
        "bytes": held | {"activations and gradients": memory.temporaries},
        "arguments": memory.arguments,
        "peak": memory.peak,
        "reserved": memory.reserved,
        "exchanges": [exchange._asdict() for exchange in exchanges(program)],
    }
    if sampler and program:
        acting, _, seconds = compile_for(target, plan.lower_sampler(run))
        params = plan.bytes_on_device(run.state.acting_params, run.placed.acting_params)
        state = sum(held.values()) - held["batch"]
        report |= {"compile_sampler_s": seconds, "reserved_sampling": state + acting.reserved - params}
    return report


def compile_for(target: targets.Target, lowered: jax.stages.Lowered) -> tuple[plan.Memory, str, float]:
    """Memory, program text and seconds; where the compiler refuses for want of memory, how much it would need."""
    start = time.perf_counter()
    try:
        program = lowered.compile(targets.options(target))
    except jax.errors.JaxRuntimeError as error:
        if (bytes_needed := plan.refused(error)) is None:
            raise
        return plan.Memory(0, 0, bytes_needed, bytes_needed), "", time.perf_counter() - start
    return plan.memory(program), program.as_text(), time.perf_counter() - start


def estimated(run: plan.Run) -> dict[str, Any]:
    parts = estimate.step_bytes(policies.make, run)
    return {
        "how": "estimated",
        "bytes": parts,
        "peak": (peak := sum(parts.values())),
        "reserved": peak,
        "exchanges": [],
    }


def needs(config: TrainConfig, sizes: dict[str, int], held: dict[str, int], chip: chips.Chip | None) -> dict[str, Any]:
    """FLOPs, and the roofline of a step where the chip is known."""
    forward = forward_flops(config.policy, config.loss.samples_per_observation)
    flops = {"per_sample": 3 * forward, "per_chunk": act_flops(config.policy)}
    if chip is None:
        return {"flops": flops, "least_seconds": None, "samples_per_s": None}
    seconds = chips.least_seconds(config, sizes, held, chip)
    return {"flops": flops, "least_seconds": seconds, "samples_per_s": config.batch_size / max(seconds.values())}


def peak_like(known: int, run: plan.Run, target: targets.Target) -> Callable[[TrainConfig], int]:
    """The peak of another config by estimate, what comes on top of the state in proportion to that of `run`, known."""
    parts, held = estimate.step_bytes(policies.make, run), sum(plan.held_bytes(run).values())
    scale = (known - held) / (sum(parts.values()) - held)

    def peak(config: TrainConfig) -> int:
        other = plan.abstract_run(policies.make, config, targets.abstract_mesh(config.mesh, target))
        total, held = sum(estimate.step_bytes(policies.make, other).values()), sum(plan.held_bytes(other).values())
        return int(held + scale * (total - held))

    return peak


class Proposal(NamedTuple):
    """A layout that fits by estimate."""

    flags: str
    config: TrainConfig
    peak: int
    samples_per_s: float  # at most


def search(config: TrainConfig, target: targets.Target) -> list[Proposal]:
    """The fastest that each mesh and remat allows, those first that could be fastest; at equal speed the smallest.

    Raises:
      InputError: what the chip can do is not known, or nothing fits.
    """
    chip = chips.chip(target.kind)
    if chip is None:
        raise InputError(f"--search needs to know the chip; --target={target.name} is {target.kind!r}")
    best: dict[tuple[int, str], Proposal] = {}
    for change in knobs.layouts(config, target.count):
        try:
            run = plan.abstract_run(policies.make, change.config, targets.abstract_mesh(change.config.mesh, target))
        except InputError:  # a mesh that leaves a large parameter whole
            continue
        peak = sum(estimate.step_bytes(policies.make, run).values())
        if peak > MARGIN * chip.memory * chips.usable_share(target.kind):
            continue
        seconds = chips.least_seconds(change.config, run.mesh.shape, plan.held_bytes(run), chip)
        proposal = Proposal(change.flags, change.config, peak, change.config.batch_size / max(seconds.values()))
        place = (run.mesh.shape["fsdp"], change.config.policy.remat)
        best[place] = min(best.get(place, proposal), proposal, key=order)
    if not best:
        raise InputError(f"no layout fits --target={target.name}, not even with a row on each device: take a larger "
                         "one, or less of the model, as in configs/pi0_lora.py")  # fmt: skip
    return sorted(best.values(), key=order)


def order(proposal: Proposal) -> tuple[float, int]:
    """Small for what is better; a thousandth of the speed is worth less than memory."""
    return -float(f"{proposal.samples_per_s:.3g}"), proposal.peak


if __name__ == "__main__":
    launch.run(main)
