"""Who may import whom: arrows between the parts of the package point downwards only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BASE = {"config", "cores", "old_configs", "errors", "types", "mesh", "processes", "provenance"}
BELOW_SERVING = BASE | {"nn", "flow", "policies", "data", "envs", "report", "train.checkpoint"}
MAY_IMPORT = {  # part of pizero_jax -> the other parts that it may import
    "config": BASE,
    "old_configs": BASE,
    "cores": set(),
    "errors": set(),
    "types": BASE,
    "mesh": BASE,
    "processes": BASE,
    "provenance": BASE,
    "nn": BASE,
    "flow": BASE,
    "policies": BASE | {"nn", "flow"},
    "data": {"cores", "errors", "types", "config"},
    "envs": {"errors", "types", "config"},
    "report": {"errors", "types", "config", "old_configs"},
    "train": BASE,  # it is handed a policy and an iterator
    "serve": BELOW_SERVING,
    "weights": BELOW_SERVING,
    "analysis": BASE | {"flow"},
    "__init__": {"serve", "types"},  # re-exports
}
HOMES = {  # package that is slow, large or optional -> the only modules that import it, and those inside functions
    "tensorflow": ("pizero_jax.data.rlds_write", "pizero_jax.data.rlds_tf"),
    "wandb": ("pizero_jax.train.metrics",),
    "diffrax": ("pizero_jax.flow.solvers",),
    "tensorboardX": ("pizero_jax.train.events",),
    "orbax": ("pizero_jax.train.checkpoint", "pizero_jax.weights"),
    "metaworld": ("pizero_jax.envs.metaworld",),
    "mujoco": ("pizero_jax.envs.metaworld", "pizero_jax.envs.aloha"),
    "dm_control": ("pizero_jax.envs.aloha",),
    "gym_aloha": ("pizero_jax.envs.aloha",),
    "gym_pusht": ("pizero_jax.envs.pusht",),
    "av": ("pizero_jax.data.video",),
    "pandas": ("pizero_jax.report.runs",),
    "pyarrow": ("pizero_jax.data.lerobot_meta", "pizero_jax.data.lerobot_files", "pizero_jax.data.lerobot_write"),
}
# `envs.make` imports them on demand: they need not be lazy themselves.
LOADED_BY_NAME = {"pizero_jax.envs.aloha", "pizero_jax.envs.metaworld", "pizero_jax.envs.pusht"}
OPTIONAL = {
    "av",
    "diffrax",
    "gymnasium",
    "metaworld",
    "msgpack",
    "mujoco",
    "pandas",
    "prometheus_client",
    "pyarrow",
    "tensorflow",
    "websockets",
}  # extras: a module that needs one may be unimportable

MODULES = sorted(
    path.relative_to(ROOT) for folder in ("pizero_jax", "launch", "configs") for path in (ROOT / folder).rglob("*.py")
)


def dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def imports(module: str, source: str) -> list[tuple[str, bool]]:
    """(what, whether it runs when the module is imported) for each import; `from a import b` counts as a.b."""
    tree = ast.parse(source)
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    lazy = {id(inner) for function in functions for inner in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*package, *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        found += [(name, id(node) not in lazy) for name in names]
    return found


def faults(module: str, source: str) -> list[str]:
    """What is wrong with the imports of this module, one line each."""
    found = []
    folder, part = (module.split(".") + ["__init__"])[:2]
    for name, eager in imports(module, source):
        package = name.split(".")[0]
        if package in HOMES:
            if not any(is_within(module, home) for home in HOMES[package]):
                found.append(f"{module} imports {name}; only {', '.join(HOMES[package])} may")
            elif eager and module not in LOADED_BY_NAME:
                found.append(f"{module} imports {name} when it is imported itself; do it inside the function")
        if folder == "configs" and package not in {"configs", "ml_collections", *sys.stdlib_module_names}:
            found.append(f"{module} imports {name}; configs import ml_collections and other configs only")
        if folder == "pizero_jax" and package in {"launch", "configs"}:
            found.append(f"{module} imports {name}; the package knows nothing of what is wired from it")
        if folder == package == "pizero_jax":
            if part not in MAY_IMPORT:
                found.append(f"{module} has no level; give pizero_jax.{part} a line in MAY_IMPORT")
            elif not any(is_within(name, f"pizero_jax.{other}") for other in MAY_IMPORT[part] | {part}):
                found.append(f"{module} imports {name}; pizero_jax.{part} may import {sorted(MAY_IMPORT[part])}")
    return found


def test_the_modules_are_found():
    assert {"pizero_jax.types", "pizero_jax.config.train", "configs.base", "launch.__init__"} <= set(
        map(dotted, MODULES)
    )


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_downwards(path):
    assert faults(dotted(path), (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("pizero_jax.flow.paths", "from pizero_jax.nn import layers", "flow may import"),
        ("pizero_jax.train.loop", "from pizero_jax import policies", "train may import"),
        ("pizero_jax.data.rlds", "def f():\n    import pizero_jax.policies.pi0", "data may import"),
        ("pizero_jax.report.tables", "from ..train import loop", "report may import"),
        ("pizero_jax.serve.policy", "from pizero_jax.train import loop", "serve may import"),
        ("pizero_jax.nn.layers", "import pizero_jax", "nn may import"),
        ("pizero_jax.gadgets.a", "from pizero_jax.types import Batch", "no level"),
        ("pizero_jax.config", "from configs import base", "knows nothing"),
        ("pizero_jax.train.loop", "from launch.train import main", "knows nothing"),
        ("configs.pi0", "from pizero_jax import config", "configs import"),
        ("configs.pi0", "import jax", "configs import"),
        ("pizero_jax.data.rlds", "def f():\n    import tensorflow as tf", "only pizero_jax.data.rlds_write"),
        ("pizero_jax.data.rlds_write", "import tensorflow as tf", "inside the function"),
        ("launch.train", "def main():\n    import wandb", "only pizero_jax.train.metrics"),
        ("pizero_jax.train.checkpoint", "class A:\n    import orbax.checkpoint as ocp", "inside the function"),
        ("pizero_jax.envs.toy", "def f():\n    from mujoco import viewer", "only pizero_jax.envs.metaworld"),
    ],
)
def test_a_forbidden_import_is_a_fault(module, source, message):
    assert len(faults(module, source)) == 1
    assert message in faults(module, source)[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pizero_jax.policies.pi0", "from pizero_jax.nn.layers import dense\nfrom pizero_jax.flow import paths"),
        ("pizero_jax.train.loop", "from pizero_jax.train.state import TrainState\nimport jax, optax"),
        (
            "pizero_jax.serve.policy",
            "from pizero_jax.train.checkpoint import restore\nimport pizero_jax.data.transforms",
        ),
        ("pizero_jax.data.rlds_write", "def write():\n    import tensorflow as tf"),
        ("pizero_jax.data.rlds", "import tensorflow_datasets as tfds"),
        ("pizero_jax.report.figures", "from .intervals import wilson\nfrom ..errors import InputError"),
        ("pizero_jax.__init__", "def __getattr__(name):\n    from pizero_jax.serve.policy import load"),
        ("launch.train", "from pizero_jax.train import loop\nfrom pizero_jax import policies, data"),
        ("configs.pi0", "import math\nfrom configs import base\nfrom ml_collections import ConfigDict"),
    ],
)
def test_an_allowed_import_is_none(module, source):
    assert faults(module, source) == []


def run(program: str) -> None:
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_is_light():
    run(f"import sys, pizero_jax; heavy = set({list(HOMES)}) & set(sys.modules); assert not heavy, heavy")


def test_importing_every_module_leaves_the_heavy_packages_out():
    modules = [dotted(path).removesuffix(".__init__") for path in MODULES if path.parts[0] == "pizero_jax"]
    modules = [module for module in modules if module not in LOADED_BY_NAME]
    run(f"""
import importlib, sys
for module in {modules}:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {OPTIONAL}:
            raise
    heavy = set({list(HOMES)}) & set(sys.modules)
    if "grain" in sys.modules:  # Grain imports Orbax by itself
        heavy -= {{"orbax"}}
    assert not heavy, f"{{module}} brings {{heavy}}"
""")
