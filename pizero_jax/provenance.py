"""What a result was made with."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "pizero_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "simplejpeg",
    "opencv-python-headless", "tensorflow-datasets", "metaworld", "mujoco", "gym-aloha", "gym-pusht",
)  # fmt: skip


def versions() -> dict[str, str]:
    """The code's git revision (`+` where files differ from it), Python's version and those of the packages."""
    found = {"code": _revision(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _revision() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"
