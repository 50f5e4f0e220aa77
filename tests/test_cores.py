import os
import subprocess
import sys

import pytest

TOLD = "import os; os.sched_setaffinity(0, {%d}); from pizero_jax import cores; print(cores.available())"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_a_process_bound_to_one_core_has_one():
    command = TOLD % min(os.sched_getaffinity(0))
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, check=True).stdout == b"1\n"
