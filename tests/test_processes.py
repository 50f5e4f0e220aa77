import importlib.util

import pytest

from pizero_jax import processes
from pizero_jax.errors import InputError

VARIABLES = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
SRUN = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}


@pytest.fixture
def packages(monkeypatch):
    """A function that says which optional packages are there."""

    def installed(*names):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in names else None)

    installed()
    return installed


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, None),
        (SRUN, "slurm"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),  # the script of sbatch itself
        (MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:5"}, "openmpi"),
        (MPI | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:5"}, "openmpi"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a pod on its own
        (VARIABLES, "variables"),
        (SRUN | VARIABLES, "variables"),
    ],
)
def test_the_environment_says_whether_there_are_others(packages, environment, launcher):
    assert processes.detect(environment) == launcher


def test_pods_of_an_indexed_job_find_each_other_through_kubernetes(packages):
    packages("kubernetes")
    assert processes.detect(POD) == "kubernetes"
    assert processes.arguments_of(POD) == {}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (POD, "JAX_NUM_PROCESSES=1 if it runs alone"),
        (MPI, "Open MPI 5"),
        ({"JAX_PROCESS_ID": "0"}, "JAX_PROCESS_ID without JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"),
        (VARIABLES | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4"),
        (VARIABLES | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two"),
    ],
)
def test_what_is_incomplete_is_an_input_error(packages, environment, words):
    with pytest.raises(InputError, match=words):
        processes.arguments_of(environment)


def test_variables_are_handed_to_jax():
    arguments = processes.arguments_of(VARIABLES)
    assert (arguments["coordinator_address"], arguments["num_processes"], arguments["process_id"]) == ("a:1", 4, 2)


def test_a_single_process_never_starts_the_engine():
    assert processes.arguments_of({"JAX_NUM_PROCESSES": "1"} | POD) is None
    assert processes.arguments_of({}) is None
    assert not processes.several()
    assert processes.is_first()
    assert processes.from_first("anything", lambda: 3, 1) == 3
