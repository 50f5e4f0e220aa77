"""Simulators behind one interface (`pizero_jax.envs.simulator.Simulator`); each is imported only when it is made."""

import ctypes
import difflib
import importlib
import logging
import os
import sys

from pizero_jax.config import EnvConfig
from pizero_jax.errors import InputError

MAKERS = {  # name -> module and class
    "aloha": ("pizero_jax.envs.aloha", "AlohaEnv"),
    "metaworld": ("pizero_jax.envs.metaworld", "MetaWorldEnv"),
    "pusht": ("pizero_jax.envs.pusht", "PushTEnv"),
    "reach_toy": ("pizero_jax.envs.reach_toy", "ReachToyEnv"),
}
_MUJOCO = ("aloha", "metaworld")  # draw with OpenGL
_GL_LIBRARIES = {  # MUJOCO_GL -> library, and its packages on Debian 12 and Ubuntu 24.04
    "egl": ("libEGL.so.1", "libegl1 libgl1-mesa-dri"),
    "osmesa": ("libOSMesa.so.8", "libosmesa6"),
}


def make(config: EnvConfig, task: str):
    """The environment of `config.name` for one task, a `Simulator` (and so a `gymnasium.Env`).

    Raises:
      InputError: unknown environment or task (names the nearest), or a package or a system library is missing.
    """
    if config.name not in MAKERS:
        raise InputError(f"config.env.name = {config.name!r}; {nearest(config.name, MAKERS)}")
    check_rendering(config)
    module, cls = MAKERS[config.name]
    try:
        maker = getattr(importlib.import_module(module), cls)
    except ModuleNotFoundError as error:
        extra = "dev" if config.name == "reach_toy" else config.name
        raise InputError(
            f"config.env.name = {config.name!r} needs the package {error.name}: pip install 'pizero_jax[{extra}]'"
        ) from error
    return maker(task, image_size=config.image_size, max_steps=config.max_steps)


def check_rendering(config: EnvConfig) -> None:
    """Chooses EGL when `MUJOCO_GL` is unset, and makes sure that its library loads; call before anything slow.

    Raises:
      InputError: the system's library is missing; names the packages to install.
    """
    if config.name not in _MUJOCO or sys.platform != "linux":
        return
    if "mujoco" in sys.modules and "MUJOCO_GL" not in os.environ:
        raise InputError("mujoco was imported before its way of drawing was chosen: set MUJOCO_GL=egl and start again")
    logging.getLogger("OpenGL").setLevel(logging.WARNING)  # it reports every optional module that it lacks
    backend = os.environ.setdefault("MUJOCO_GL", "egl")  # mujoco reads it when it is first imported
    if backend not in _GL_LIBRARIES:
        return
    library, packages = _GL_LIBRARIES[backend]
    try:
        ctypes.CDLL(library)
    except OSError as error:
        raise InputError(
            f"MUJOCO_GL={backend} draws with {library}, which cannot be loaded: apt-get install {packages}"
        ) from error


def nearest(name: str, known) -> str:
    """`did you mean 'x'?`, or all that is known when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
