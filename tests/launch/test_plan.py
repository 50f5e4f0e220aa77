import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import targets

ROOT = Path(__file__).parents[2]
SMALL = [
    f"--config={ROOT}/configs/pi0_metaworld.py",
    "--config.policy.unroll=1",
    "--config.policy.image_size=32",
    "--config.policy.attention.depth=2",
    "--config.loss.samples_per_observation=1",
]


NIGHTLY = (
    pytest.mark.nightly,
    pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it"),
)


def nightly(test):
    for mark in NIGHTLY:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def refused(forked):
    lines = {
        "unknown": [*SMALL, "--target=h100x7"],
        "mesh": [*SMALL, "--target=h100x8", "--estimate", "--config.mesh.fsdp=3"],
        "wordless": ["--config=configs/act.py", "--target=h100x8", "--estimate"],
        "torus": [*SMALL, "--target=v6e-64", "--estimate", "--config.mesh.fsdp=16"],
    }
    return dict(zip(lines, forked("launch.plan", list(lines.values())), strict=True))


@pytest.fixture(scope="module")
def planned(forked):
    lines = {
        "here": [*SMALL, "--config.mesh.data=2", "--config.mesh.fsdp=2", "--nosampler", "--json"],
        "large": [*SMALL, "--target=h100x8", "--estimate", "--config.batch_size=1048576"],
        "search": [*SMALL, "--target=v6e-64", "--estimate", "--search", "--json"],
    }
    return dict(zip(lines, forked("launch.plan", list(lines.values()), devices=4), strict=True))


@nightly
def test_a_plan_for_what_is_here_compiles_and_its_arguments_are_the_sharded_state_and_batch(planned):
    report = json.loads(planned["here"].stdout)
    assert (report["how"], report["devices"], report["mesh"]) == ("compiled", 4, {"data": 2, "fsdp": 2, "tensor": 1})
    held = {name: size for name, size in report["bytes"].items() if name != "activations and gradients"}
    assert report["arguments"] == sum(held.values()) + 4  # the number of the step
    assert report["peak"] > report["arguments"]
    assert {"all-gather", "all-reduce"} <= {exchange["kind"] for exchange in report["exchanges"]}
    assert report["fits"] is None  # how much memory a host may give is not known
    assert planned["here"].returncode == 0


def test_an_unknown_target_is_told_which_there_are(refused):
    assert refused["unknown"].returncode == 2
    assert all(name in refused["unknown"].stderr for name in ("--target=h100x7", *targets.TARGETS, "this"))


def test_a_policy_without_a_backbone_is_refused(refused):
    assert refused["wordless"].returncode == 2
    assert "config.policy.name = 'act': plans are for policies on a backbone" in refused["wordless"].stderr


def test_a_mesh_that_does_not_divide_the_target_names_the_key(refused):
    assert refused["mesh"].returncode == 2
    assert "config.mesh asks for data=-1 x fsdp=3 x tensor=1; 8 devices" in refused["mesh"].stderr


def test_a_mesh_that_does_not_follow_the_torus_names_the_key(refused):
    assert refused["torus"].returncode == 2
    assert "config.mesh asks for data=4 x fsdp=16 x tensor=1" in refused["torus"].stderr
    assert "torus of 8 x 8" in refused["torus"].stderr


@nightly
def test_what_does_not_fit_is_told_what_to_turn_and_fails(planned):
    result = planned["large"]
    assert result.returncode == 3
    assert "ESTIMATE from shapes" in result.stdout
    assert "the extra plan-cuda" in result.stdout
    assert "Does not fit" in result.stdout
    assert "Turn next: --config." in result.stdout


@nightly
def test_a_search_proposes_what_fits_the_fastest_first(planned):
    report = json.loads(planned["search"].stdout)
    assert planned["search"].returncode == 0
    assert report["fits"]
    speeds = [float(f"{proposal['samples_per_s']:.3g}") for proposal in report["proposals"]]
    assert speeds == sorted(speeds, reverse=True)
    assert all(proposal["peak"] < report["usable"] for proposal in report["proposals"])


@nightly
@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_target_compiles_without_having_it(name):
    target = targets.TARGETS[name]
    if not targets.can_compile(target):
        pytest.skip(f"pip install -e .[{targets.extra(target)}]")
    line = [sys.executable, "-m", "launch.plan", *SMALL, f"--target={name}", "--config.batch_size=256", "--json"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["how"], report["devices"], report["fits"]) == ("compiled", target.count, True)
    assert report["reserved_sampling"] < report["reserved"]
    assert report["exchanges"]
