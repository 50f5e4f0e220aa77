"""A plan as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from pizero_jax.report import tables


def page(report: Mapping[str, Any]) -> str:
    """All of it, the verdict last."""
    parts = [head(report), memory(report)]
    if report["exchanges"]:
        parts.append(exchanged(report["exchanges"]))
    parts.append(speed(report))
    if report["proposals"]:
        parts.append("proposals, by estimate; this plan is of the first\n\n" + options(report["proposals"]))
    return "\n\n".join([*parts, verdict(report)])


def head(report: Mapping[str, Any]) -> str:
    mesh = " x ".join(f"{axis}={size}" for axis, size in report["mesh"].items())
    micro = f" in {report['accumulation']} micro-batches" if report["accumulation"] > 1 else ""
    lines = [
        f"{report['policy']} on {report['devices']} x {report['device']} ({report['target']}), mesh {mesh}",
        f"batch {report['batch_size']}: {report['rows_on_device']} rows on each device{micro}; remat {report['remat']}",
    ]
    if report["how"] == "compiled":
        sampler = report.get("compile_sampler_s")
        lines.append(
            f"compiled in {report['compile_s']:.0f} s" + (f", the sampler in {sampler:.0f} s" if sampler else "")
        )
    else:
        extra = report["extra"] and f"; the extra {report['extra']} compiles the real step"
        lines.append(f"ESTIMATE from shapes: nothing was compiled{extra or ''}")
    return "\n".join(lines)


def memory(report: Mapping[str, Any]) -> str:
    rows = [{"on each device": name, "GB": gb(size)} for name, size in report["bytes"].items() if size]
    rows.append({"on each device": "peak of a step", "GB": gb(report["peak"])})
    if report["how"] == "compiled":
        rows.append({"on each device": "reserved for a step", "GB": gb(report["reserved"])})
    if "reserved_sampling" in report:
        rows.append({"on each device": "reserved while validation samples", "GB": gb(report["reserved_sampling"])})
    if report["memory"]:
        rows.append({"on each device": "memory", "GB": gb(report["memory"])})
        rows.append({"on each device": "of it for JAX", "GB": gb(report["usable"])})
    return tables.markdown(rows)


def exchanged(exchanges: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        {
            "exchange": x["kind"],
            "in the program": x["in_program"],
            "in a step": x["per_step"],
            "GB in a step": gb(x["bytes_per_step"]),
        }
        for x in exchanges
    ]
    return tables.markdown(rows)


def speed(report: Mapping[str, Any]) -> str:
    flops = report["flops"]
    rows = [
        {"": "TFLOP of a sample, forward and backward", "value": flops["per_sample"] / 1e12},
        {"": "TFLOP of a sampled chunk", "value": flops["per_chunk"] / 1e12},
    ]
    if report["least_seconds"]:
        rows += [
            {"": f"ms of a step at least, {name}", "value": 1e3 * s} for name, s in report["least_seconds"].items()
        ]
        rows.append({"": "samples/s at most", "value": report["samples_per_s"]})
    return tables.markdown(rows)


def options(found: Sequence[Mapping[str, Any]]) -> str:
    def row(x: Mapping[str, Any]) -> dict[str, Any]:
        speed = {"samples/s at most": x["samples_per_s"]} if "samples_per_s" in x else {}
        return speed | {"GB at the peak": gb(x["peak"]), "flags": x["flags"]}

    return tables.markdown([row(x) for x in found])


def verdict(report: Mapping[str, Any]) -> str:
    if report["fits"] is None:
        return "The memory of this device is not known."
    peak, usable = gb(report["worst"]), gb(report["usable"])
    if report["fits"]:
        return f"Fits: {peak:.1f} of {usable:.1f} GB."
    lines = [f"Does not fit: {peak:.1f} of {usable:.1f} GB."]
    if report["worst"] < 0.95 * report["memory"]:
        lines.append(
            f"XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 lets JAX have {0.95 * gb(report['memory']):.1f} GB of this chip."
        )
    if report["effects"]:
        lines += ["", "Each knob alone, by estimate:", "", options(report["effects"]), ""]
    if report["remedy"]:
        steps = [f"{step['flags']} ({gb(step['peak']):.1f} GB)" for step in report["remedy"]]
        lines.append(f"Turn next: {', then '.join(steps)}.")
    else:
        lines.append("No knob makes it fit: take a larger target, or less of the model, as in configs/pi0_lora.py.")
    return "\n".join(lines)


def gb(size: float) -> float:
    return size / 1e9
