"""How XLA works in tests: they compile much and compute little."""

import mmap
import os
from importlib.util import find_spec
from pathlib import Path

# Unoptimised machine code, without fusion emitters and in one piece, takes less than half of the CPU time to compile.
FAST = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def compiling_fast(given: str) -> str:
    """XLA_FLAGS with `FAST`, without those that this XLA does not know: they would end the process."""
    if FAST[0] in given:  # the processes of pytest-xdist
        return given
    library = Path(find_spec("jaxlib").origin).with_name("libjax_common.so")
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        # Names of flags end there; those of flags that were taken out may still be listed, in a descriptor.
        known = [flag for flag in FAST if binary.find(flag.strip("-").split("=")[0].encode() + b"\0") >= 0]
    return " ".join([given, *known]).strip()


def with_devices(count: int) -> dict[str, str]:
    """The environment of a process with so many CPU devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
