"""What a training run asks of the folder that it finds."""

import dataclasses
import json
import re
import shutil

import pytest

from configs import pi0_metaworld
from launch import workdirs
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import loader, normalize
from pizero_jax.errors import InputError
from tests.data.make_rlds_tiny import FOLDER
from tests.data.rewriting import robot


def opened(path="", sets=()) -> loader.Data:
    c = pi0_metaworld.get_config()
    c.data.path, c.data.index_dir, c.policy.chunk, c.env.execute = str(path), "", 4, 2
    c.data.sets = {name: {"path": str(place)} for name, place in dict(sets).items()}
    return loader.open_data(build(TrainConfig, c))


def begin(workdir, data: loader.Data) -> None:
    workdirs.begin(workdir, {"config": {}, "statistics": normalize.to_saved(data.statistics)}, data, overwrite=False)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """As many frames with other numbers."""
    return robot(tmp_path_factory.mktemp("other") / "1.0.0", state=4, action=4, shift=0.1)


def test_the_data_of_a_run_may_move_but_not_change(tmp_path, other):
    workdir, moved = tmp_path / "run", tmp_path / "moved"
    begin(workdir, opened(FOLDER))
    begin(workdir, opened(shutil.copytree(FOLDER, moved)))
    before = (workdir / "config.json").read_text()
    message = (
        rf"config.data.path = '{other}': the data have changed since the run in --workdir={workdir} began: the mean"
    )
    with pytest.raises(InputError, match=message + r" of state\[0\] is .*, was .*; give back"):
        begin(workdir, opened(other))
    assert (workdir / "config.json").read_text() == before


def test_data_that_have_grown_are_not_those_a_run_began_with(tmp_path):
    data = opened(FOLDER)
    begin(tmp_path, data)
    file = tmp_path / "config.json"
    saved = json.loads(file.read_text())
    count = saved["statistics"]["state"]["count"]
    saved["statistics"]["state"]["count"] -= 20
    file.write_text(json.dumps(saved))
    with pytest.raises(InputError, match=f"state: {count} rows, were {count - 20}"):
        begin(tmp_path, data)
    del saved["statistics"]["state"]["count"]  # as in runs of before it was known
    for key in ("min", "max"):
        del saved["statistics"]["state"][key]
    file.write_text(json.dumps(saved))
    begin(tmp_path, data)


def test_what_another_version_rounds_otherwise_is_the_same(tmp_path):
    data = opened(FOLDER)
    [source] = data.sources
    moved = {
        name: dataclasses.replace(group, mean=group.mean + 1e-9 * group.std, std=group.std * (1 + 1e-9))
        for name, group in source.statistics.items()
    }
    begin(tmp_path, data)
    begin(tmp_path, data._replace(sources=(source._replace(statistics=moved),)))


def test_the_data_set_of_a_mixture_that_has_changed_is_named(tmp_path, other):
    begin(tmp_path, opened(sets={"one": FOLDER, "two": FOLDER}))
    begin(tmp_path, opened(sets={"one": FOLDER, "two": FOLDER}))
    with pytest.raises(InputError, match=f"data set 'two': config.data.path = {re.escape(repr(str(other)))}"):
        begin(tmp_path, opened(sets={"one": FOLDER, "two": other}))
