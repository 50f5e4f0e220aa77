import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from pizero_jax import config as configs
from pizero_jax import policies
from pizero_jax.config import LoraConfig, TrainConfig
from pizero_jax.data import normalize
from pizero_jax.errors import InputError
from pizero_jax.train import optimizer
from pizero_jax.train.freeze import is_frozen
from pizero_jax.weights import openpi, source
from pizero_jax.weights.openpi_layout import their_name

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "ckpt_openpi_pi0_tiny" / "1"
TREES = json.loads((GOLDEN / "param_trees.json").read_text())
KEY = jax.random.key(0)


def config_of(name: str) -> TrainConfig:
    return configs.build(TrainConfig, importlib.import_module(f"configs.{name}").get_config())


def published(name: str) -> source.Source:
    """The shapes of a full-size model of openpi's."""
    shapes = {path: jax.ShapeDtypeStruct(shape, dtype) for path, (shape, dtype) in TREES["trees"][name].items()}
    return source.Source(name, shapes, read=None)


def shapes_under_openpi_s_names(config) -> dict:
    policy = policies.make(config.policy, config.loss)
    return jax.eval_shape(openpi.to_openpi, jax.eval_shape(policy.init, KEY))


@pytest.mark.parametrize("name", TREES["trees"])
def test_full_size_models_have_openpi_s_leaves_and_numbers_of_parameters(name):
    ours = shapes_under_openpi_s_names(config_of(name))
    assert {path: x.shape for path, x in ours.items()} == {k: x.shape for k, x in published(name).shapes.items()}
    assert sum(x.size for x in ours.values()) == TREES["counts"][name]


@pytest.mark.parametrize("name", TREES["trees"])
def test_the_config_of_a_full_size_model_is_inferred_from_its_shapes(name):
    ours, inferred = config_of(name).policy, openpi.infer(published(name))
    told = ["name", "image_size", "vision", "attention", "language"]
    told += ["expert", "action_dim", "state_dim"] if hasattr(ours, "expert") else []
    assert [getattr(ours, key) for key in told] == [getattr(inferred, key) for key in told]
    ours, inferred = ({r.modules.split("/")[0]: (r.rank, r.alpha) for r in c.lora.rules} for c in (ours, inferred))
    assert ours == inferred


FORMS = {  # openpi's freezing -> our config, and how many of its rules
    "pali_lora": ("pi0_lora", slice(0, 1)),
    "expert_lora": ("pi0_lora", slice(1, 2)),
    "both_lora": ("pi0_lora", slice(0, 2)),
    "pi05_both_lora": ("pi05_lora", slice(0, 2)),
    "fast_lora": ("pi0_fast_lora", slice(0, 1)),
}


@pytest.mark.parametrize("form", TREES["frozen"])
def test_each_form_of_lora_freezes_what_openpi_freezes(form):
    name, rules = FORMS[form]
    c = importlib.import_module(f"configs.{name}").get_config()
    c.policy.lora.rules, c.freeze.params = c.policy.lora.rules[rules], c.freeze.params[rules]
    config = configs.build(TrainConfig, c)
    paths = source.flat(jax.eval_shape(policies.make(config.policy, config.loss).init, KEY))
    frozen = {their_name(path) for path in paths if is_frozen(path, config.freeze)}
    assert frozen == set(TREES["frozen"][form])


@pytest.mark.parametrize(
    ("place", "raw", "prefix"), [("", False, "ema/"), ("", True, "raw/"), ("params", True, "raw/")]
)
def test_openpi_s_checkpoint_holds_its_arrays(place, raw, prefix):
    arrays = np.load(GOLDEN / "ckpt_openpi_pi0_tiny_params.npz")
    params = openpi.read(CHECKPOINT / place, raw=raw).params
    ours = openpi.to_openpi(jax.tree.map(np.asarray, params))
    assert {prefix + path for path in ours} == {path for path in arrays if path.startswith(prefix)}
    for path, x in ours.items():
        np.testing.assert_array_equal(x, arrays[prefix + path])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """openpi's checkpoint, read and written again."""
    acting, raw = openpi.read(CHECKPOINT), openpi.read(CHECKPOINT, raw=True)
    tx = optimizer.make(config_of("pi0").optimizer)
    folder = tmp_path_factory.mktemp("exported") / "1"
    openpi.export(
        folder,
        acting.params,
        statistics=normalize.load(str(CHECKPOINT / "assets" / "trossen" / "norm_stats.json")),
        asset_id="trossen",
        training=openpi.Training(jax.numpy.int32(2), raw.params, tx.init(raw.params)),
    )
    return folder, acting


def test_what_is_exported_and_imported_is_equal_to_the_last_bit(exported):
    folder, acting = exported
    again = openpi.read(folder)
    assert again.config == acting.config
    for path, x in source.flat(again.params).items():
        np.testing.assert_array_equal(x, source.flat(acting.params)[path], err_msg=path)


@pytest.mark.parametrize("item", ["params", "train_state"])
def test_exported_items_have_openpi_s_paths_and_shapes(exported, item):
    """Key paths, kinds of keys and shapes, as Orbax writes them down: openpi's Orbax finds what it expects."""
    ours, theirs = (json.loads((f / item / "_METADATA").read_text()) for f in (exported[0], CHECKPOINT))
    assert ours.items() >= theirs.items()  # newer ones of Orbax add a key
    assert arrays_of(exported[0] / item) == arrays_of(CHECKPOINT / item)


def arrays_of(item: Path) -> dict:
    rows = json.loads((item / "array_metadatas" / "process_0").read_text())["array_metadatas"]
    return {row["array_metadata"]["param_name"]: row["array_metadata"] for row in rows}


def test_a_run_without_averages_resumes_from_the_parameters_that_act(tmp_path):
    """openpi's state has no parameters then, and Orbax restores only what has just the expected keys."""
    import orbax.checkpoint as ocp

    raw = openpi.read(CHECKPOINT, raw=True).params
    opt_state = optimizer.make(config_of("pi0_lora").optimizer).init(raw)
    openpi.export(tmp_path / "1", raw, training=openpi.Training(jax.numpy.int32(2), None, opt_state))
    state = tmp_path / "1" / "train_state"
    expected = jax.tree.map(np.asarray, ocp.PyTreeCheckpointer().restore(CHECKPOINT / "train_state")) | {"params": {}}
    restored = ocp.PyTreeCheckpointer().restore(state, ocp.args.PyTreeRestore(expected))
    assert restored["params"] == {}
    assert restored["step"] == 2
    for path, x in source.flat(openpi.read(tmp_path / "1", raw=True).params).items():
        np.testing.assert_array_equal(x, source.flat(raw)[path], err_msg=path)


def test_exported_statistics_are_openpi_s(exported):
    ours, theirs = (f / "assets" / "trossen" / "norm_stats.json" for f in (exported[0], CHECKPOINT))
    assert ours.read_bytes() == theirs.read_bytes()


def test_an_existing_folder_is_not_written_over(exported):
    with pytest.raises(InputError, match="exists; name another folder"):
        openpi.export(*exported[:1], exported[1].params)


@pytest.mark.parametrize("suffix", ["", "/value"])
@pytest.mark.parametrize("prefix", ["", "params/", "param/"])
def test_paths_may_have_openpi_s_ends_and_our_prefixes(arrays, prefix, suffix):
    _, params = openpi.load({f"{prefix}{path}{suffix}": x for path, x in arrays.items()})
    np.testing.assert_array_equal(params["action_out"]["bias"], arrays["action_out_proj/bias"])


def test_a_picture_without_a_mask_is_there_in_all_rows():
    golden = np.load(GOLDEN / "pi0_dummy.npz")
    inputs = {name.removeprefix("in/"): golden[name] for name in golden if name.startswith("in/")}
    without = {name: x for name, x in inputs.items() if name != "image_mask/base_0_rgb"}
    there = inputs | {"image_mask/base_0_rgb": np.ones(len(inputs["state"]), bool)}
    jax.tree.map(np.testing.assert_array_equal, openpi.batch(without), openpi.batch(there))


def test_bfloat16_arrays_stay_bfloat16(arrays):
    policy, params = openpi.load({path: x.astype(jax.numpy.bfloat16) for path, x in arrays.items()})
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"bfloat16"}


@pytest.fixture
def arrays():
    golden = np.load(GOLDEN / "ckpt_openpi_pi0_tiny_params.npz")
    return {path.removeprefix("ema/"): golden[path] for path in golden if path.startswith("ema/")}


def test_missing_unused_and_transposed_leaves_are_reported_together(arrays):
    del arrays["PaliGemma/llm/layers/attn/q_einsum/w"]
    arrays["state_proj/kernel"] = arrays["state_proj/kernel"].T
    arrays["PaliGemma/llm/layers/mlp/linear"] = arrays["PaliGemma/llm/layers/mlp/linear"].swapaxes(1, 2)
    arrays["something/else"] = np.zeros(3)
    with pytest.raises(InputError) as report:
        openpi.load(arrays)
    assert str(report.value).splitlines() == [
        "the mapping does not hold openpi's pi0 of these sizes; nothing was loaded:",
        "  missing: PaliGemma/llm/layers/attn/q_einsum/w [4, 8, 64, 16]",
        "  unused: something/else [3]",
        "  unlike: PaliGemma/llm/layers/mlp/linear is [4, 64, 128], should be [4, 128, 64]",
        "  unlike: state_proj/kernel is [64, 8], should be [8, 64]",
    ]


def test_extra_arrays_are_left_out_and_named(arrays, caplog):
    extras = {f"value_head/{i:02}/kernel": np.zeros((3, 3)) for i in range(12)}
    _, params = openpi.load(arrays | extras)
    assert "the mapping: left over, unused: value_head/00/kernel, " in caplog.text
    assert "value_head/09/kernel and 2 more" in caplog.text
    ours = openpi.to_openpi(jax.tree.map(np.asarray, params))
    assert ours.keys() == arrays.keys()


def test_arrays_that_are_extra_in_the_main_are_refused(arrays):
    extras = {f"something/{i}": np.zeros(3) for i in range(len(arrays) + 1)}
    with pytest.raises(InputError, match="unused: something/0"):
        openpi.load(arrays | extras)


def test_weights_of_something_else_are_refused():
    with pytest.raises(InputError, match="missing: PaliGemma/img/Transformer/encoder_norm/scale"):
        openpi.load({"dense/kernel": np.zeros((2, 2))})


@pytest.mark.parametrize("place", ["1", "1/params"])
def test_a_relative_path_leads_to_a_step_and_to_its_parameters(monkeypatch, place):
    monkeypatch.chdir(CHECKPOINT.parent)
    assert openpi.read(place).config == openpi.read(CHECKPOINT).config


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a checkpoint of openpi"):
        openpi.load(str(tmp_path))


@pytest.mark.parametrize("place", ["", "params"])
def test_averaged_parameters_are_not_taken_for_raw_ones(tmp_path, place):
    """Released checkpoints have no state."""
    shutil.copytree(CHECKPOINT / "params", tmp_path / "params")
    with pytest.raises(InputError, match="has no train_state in or beside it, so no raw parameters"):
        openpi.read(tmp_path / place, raw=True)


def test_a_truncated_file_is_reported_with_the_leaf_that_it_breaks(tmp_path, exported):
    broken = tmp_path / "1"
    shutil.copytree(CHECKPOINT, broken)
    largest = max((broken / "params").rglob("d/*"), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(InputError, match=r"params: PaliGemma/\S+ cannot be read"):
        openpi.load(str(broken))


def test_adapters_are_found_with_their_ranks_and_openpi_s_ways():
    lora = openpi.infer(published("pi0_lora"), alpha=8.0).lora
    assert lora.openpi
    assert {(r.modules.split("/")[0], r.rank, r.alpha) for r in lora.rules} == {
        ("backbone", 16, 8.0),
        ("expert", 32, 8.0),
    }
    assert openpi.infer(published("pi0")).lora == LoraConfig((), openpi=False)


def test_the_package_alone_leads_to_openpi_s_weights():
    code = "import pizero_jax; print(pizero_jax.weights.openpi.load.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=GOLDEN.parents[1])
    assert done.stdout.strip() == "pizero_jax.weights.openpi", done.stderr
