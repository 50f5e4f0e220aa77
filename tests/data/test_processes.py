"""The order of training does not depend on when a run stops, nor on how many processes share it: real processes."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.data.make_rlds_tiny import FOLDER
from tests.data.rewriting import robot

ROOT = Path(__file__).parents[2]
FAR = 10**6  # a step that nobody walks to

# Makes the batches of each (start, count, process_index, process_count) that it is asked for, and pickles them.
LOADER = """
import itertools, json, pickle, sys
import jax
from configs import base
from pizero_jax import config as configs
from pizero_jax.data import loader

one, two, out, asked = *sys.argv[1:4], json.loads(sys.argv[4])
c = base.get_config()
c.policy.image_size, c.policy.vision.patch, c.policy.prompt_length = 64, 16, 24
c.policy.chunk, c.policy.state_dim, c.policy.action_dim = 4, 6, 7
c.data.sets = dict(one=dict(path=one, weight=2.0), two=dict(path=two, cameras=dict(base_0_rgb="image")))
c.data.index_dir, c.data.cache_gb = "", 4e-5  # bytes of one or two episodes
c.data.dropout = dict(cameras=0.2, state=0.2, prompt=0.2)
config = configs.build(configs.TrainConfig, c)
data = loader.open_data(config)
pools = [order.pools for order in data.order(0, 8).orders]
assert min(pools) >= 2, pools
found = {}
for start, count, index, processes in asked:
    batches = loader.batches(data, seed=0, batch_size=8, start=start, process_index=index, process_count=processes)
    found[start, count, index, processes] = [jax.tree.leaves(batch) for batch in itertools.islice(batches, count)]
ids = {step: tuple(data.order(0, 8)(step)) for step in (*range(12), 10**6)}
pickle.dump((ids, found), open(out, "wb"))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What seven processes made at the same time: two whole runs, halves and quarters of it."""
    folder = tmp_path_factory.mktemp("processes")
    two = robot(folder / "two", state=2, action=3, scale=5.0)
    jobs = [[[0, 12, 0, 1], [FAR, 2, 0, 1]], [[0, 12, 0, 1], [7, 5, 0, 1], [FAR, 2, 0, 1], [FAR + 1, 1, 0, 1]]]
    for count in (2, 4):
        jobs += [[[0, 12, index, count], [FAR, 2, index, count]] for index in range(count)]
    results = []
    for first in range(0, len(jobs), 4):  # so many at once
        running = []
        for number, job in enumerate(jobs[first : first + 4], first):
            line = [sys.executable, "-c", LOADER, FOLDER, two, folder / str(number), str(job).replace("'", '"')]
            environment = os.environ | {"JAX_PLATFORMS": "cpu"}
            running.append(subprocess.Popen(list(map(str, line)), cwd=ROOT, env=environment, stderr=subprocess.PIPE))
        for number, process in enumerate(running, first):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()[-2000:]
            results.append(pickle.loads((folder / str(number)).read_bytes()))
    return results


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
def test_sample_ids_are_the_same_in_every_process(loaded):
    first, *others = [ids for ids, _ in loaded]
    assert len(first) == 13
    for other in others:
        assert_equal(first, other)
    sets = np.concatenate([sets for sets, _ in first.values()])
    assert set(sets.tolist()) == {0, 1}


@pytest.mark.slow
def test_a_run_repeats_itself_bit_for_bit(loaded):
    for start, count in ((0, 12), (FAR, 2)):
        assert_equal(*(found[start, count, 0, 1] for _, found in loaded[:2]))


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_with_the_batches_that_would_have_come(loaded):
    whole = loaded[0][1]
    resumed = loaded[1][1]
    assert_equal(resumed[7, 5, 0, 1], whole[0, 12, 0, 1][7:])
    assert_equal(resumed[FAR + 1, 1, 0, 1], whole[FAR, 2, 0, 1][1:])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("start", "steps"), [(0, 12), (FAR, 2)])
def test_processes_make_the_rows_of_the_batch_of_one(loaded, count, start, steps):
    parts = [
        found[start, steps, i, count] for i in range(count) for _, found in loaded if (start, steps, i, count) in found
    ]
    assert len(parts) == count
    joined = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
    assert_equal(joined, loaded[0][1][start, steps, 0, 1])
