"""Configs of before: `old_config.json` is that of `configs/pi0_metaworld.py` at commit 46b27a2, as a run saved it."""

import dataclasses
import json
from pathlib import Path

import pytest

from configs import base, pi0_metaworld
from pizero_jax.config import TrainConfig, build, differences
from pizero_jax.errors import InputError
from pizero_jax.old_configs import ADDED, completed

OLD = json.loads((Path(__file__).parent / "old_config.json").read_text())


def test_an_old_config_means_today_s_of_the_same_recipe():
    ours = build(TrainConfig, pi0_metaworld.get_config())
    assert build(TrainConfig, completed(OLD)) == ours
    assert differences(completed(OLD), dataclasses.asdict(ours)) == []  # a run of then can be resumed


def test_only_saved_configs_may_lack_keys():
    with pytest.raises(InputError, match="config lacks accumulation, .*"):
        build(TrainConfig, OLD)


def test_what_a_config_has_is_left_as_it_is():
    saved = dataclasses.asdict(build(TrainConfig, base.get_config()))
    saved["data"]["history"] = 7
    before = json.dumps(saved)
    assert json.dumps(completed(saved)) == json.dumps(saved) == before


def test_added_keys_are_keys():
    config = dataclasses.asdict(build(TrainConfig, base.get_config()))
    for path in ADDED:
        inner = config
        for key in path.split("."):
            inner = inner[key]
