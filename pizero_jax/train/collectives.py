"""What devices exchange in a compiled program, read from its text (XLA's HLO)."""

import json
import math
import re
from collections import defaultdict
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+)(?: \(.*)? \{$")
_EXCHANGE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(r"(body|calls|to_apply|branch_computations|(?:true|false)_computation)=(\{[^}]*\}|%?[\w.\-]+)")
_SHAPE = re.compile(r"(pred|token|[a-z]+(\d+)\w*)\[([\d,]*)\]")


class Exchange(NamedTuple):
    """All exchanges of one kind."""

    kind: str
    in_program: int  # instructions
    per_step: int  # times that they run: one in a loop over layers once for each layer
    bytes_per_step: int  # of their results, on each device


def exchanges(hlo: str) -> list[Exchange]:
    """Those of one run of the program, by kind; a loop of unknown length counts once."""
    bodies, entry = _computations(hlo)
    runs = _runs(bodies, entry)
    counts = {kind: [0, 0, 0] for kind in KINDS}
    for name, lines in bodies.items():
        for line in lines:
            if (match := _EXCHANGE.search(line)) and runs[name]:
                count = counts[match[2]]
                count[0] += 1
                count[1] += runs[name]
                count[2] += runs[name] * _bytes(match[1], match[2] + (match[3] or ""))
    return [Exchange(kind, *count) for kind, count in counts.items() if count[0]]


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """The instructions of each computation by its name, and the name of the first to run."""
    bodies, entry, name = {}, "", ""
    for line in hlo.splitlines():
        if match := _COMPUTATION.match(line):
            name = match[2]
            bodies[name] = []
            entry = name if match[1] else entry
        elif name and " = " in line:
            bodies[name].append(line)
    return bodies, entry


def _runs(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
    """How often each computation runs; of a conditional every branch counts."""
    runs: dict[str, int] = defaultdict(int)

    def run(name: str, times: int) -> None:
        runs[name] += times
        for line in bodies.get(name, ()):
            for role, called in _CALLED.findall(line):
                for inner in re.findall(r"[\w.\-]+", called):
                    run(inner, times * (_trips(line, bodies) if role == "body" else 1))

    run(entry, 1)
    return runs


def _trips(line: str, bodies: dict[str, list[str]]) -> int:
    """As the compiler tells; that of TPUs does not, and JAX's loops count from 0 up to a constant of the condition."""
    if known := re.search(r'"known_trip_count":(\{[^}]*\})', line):
        return int(json.loads(known[1])["n"])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    bounds = re.findall(r"= s32\[\]\S* constant\((\d+)\)", "\n".join(bodies.get(condition[1], ()) if condition else ()))
    return int(bounds[0]) if len(bounds) == 1 else 1


def _bytes(result: str, kind: str) -> int:
    """Of the result; what starts an exchange has its operands before it, and may have flags behind."""
    sizes = [
        math.prod(int(n) for n in shape.split(",") if n) * max(int(bits or 8), 8) // 8
        for _, bits, shape in _SHAPE.findall(result)
    ]
    if kind == "all-gather-start":
        return sum(sizes[len(sizes) // 2 :])
    return sizes[1] if kind == "collective-permute-start" else sum(sizes)
