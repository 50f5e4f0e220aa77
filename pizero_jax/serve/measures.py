"""What a server counts and times: as Prometheus reads it, and as percentiles of the last requests."""

from collections import defaultdict, deque
from collections.abc import Callable

import numpy as np
import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES = ("answered", "refused", "busy", "timeout", "failed", "gone")
KEPT = 1_000  # requests, for percentiles
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Measures:
    """Counters of one server. Stages of a request: read, queue, act, finish and all of it, in seconds."""

    def __init__(self, connections: Callable[[], int], waiting: Callable[[], int], step: Callable[[], int]):
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("pizero_requests", "Requests by outcome.", ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        self._turned_away = Counter("pizero_turned_away", "Connections by reason.", ["reason"], registry=registry)
        self._malformed = Counter("pizero_malformed_chunks", "Chunks written as no valid tokens.", registry=registry)
        self._reloads = Counter("pizero_reloads", "Checkpoints taken while serving.", registry=registry)
        stages = "Time of a request by stage."
        self._stages = Histogram("pizero_stage_seconds", stages, ["stage"], buckets=_SECONDS, registry=registry)
        self._rows = Histogram("pizero_batch_rows", "Requests in a call.", buckets=(1, 2, 4, 8, 16, 32, 64),
                               registry=registry)  # fmt: skip
        for name, text, value in (
            ("pizero_connections", "Open connections.", connections),
            ("pizero_queue", "Requests that wait.", waiting),
            ("pizero_checkpoint_step", "Step of the checkpoint that acts.", step),
        ):
            Gauge(name, text, registry=registry).set_function(value)
        self._last: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def count(self, outcome: str) -> None:
        self._requests.labels(outcome).inc()

    def turn_away(self, reason: str) -> None:
        self._turned_away.labels(reason).inc()

    def called(self, rows: int, malformed: int) -> None:
        self._rows.observe(rows)
        self._malformed.inc(malformed)

    def reloaded(self) -> None:
        self._reloads.inc()

    def time(self, stages: dict[str, float]) -> None:
        for stage, seconds in stages.items():
            self._stages.labels(stage).observe(seconds)
            self._last[stage].append(seconds)

    def percentiles(self) -> dict[str, list[float]]:
        """50%, 95% and 99% of the last requests by stage, in ms."""
        return {stage: (1e3 * np.quantile(times, [0.5, 0.95, 0.99])).tolist() for stage, times in self._last.items()}

    def text(self) -> str:
        """All of it in Prometheus's format."""
        return prometheus_client.generate_latest(self._registry).decode()
