"""What a run that goes on beside a benchmark has come to."""

import json
import subprocess
from pathlib import Path


def logged(workdir: Path) -> int:
    """The newest step in the metrics."""
    lines = (workdir / "metrics.jsonl").read_text().split("\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return sorted(map(int, found.split()))
