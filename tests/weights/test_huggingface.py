import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax import config as configs
from pizero_jax import policies
from pizero_jax.config import (
    AttentionConfig,
    LanguageConfig,
    LoraConfig,
    LoraRule,
    Pi0FastConfig,
    TrainConfig,
    VisionConfig,
)
from pizero_jax.errors import InputError
from pizero_jax.nn.paligemma import PaliGemma
from pizero_jax.types import Observation
from pizero_jax.weights import huggingface, safetensors, source
from pizero_jax.weights.huggingface_config import infer
from pizero_jax.weights.huggingface_layout import LEROBOT, TRANSFORMERS, Names, to_huggingface

FIXTURE = Path(__file__).parent / "huggingface"  # made by make_huggingface.py
CAMERAS = ("front", "hand")
UNTOLD = {"head_dim": 6, "vision_heads": 2}  # what neither shapes nor lerobot's config.json tell
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def config(tiny) -> Pi0FastConfig:
    """A policy on the PaliGemma of the fixture."""
    common = {key: value for key, value in vars(tiny).items() if key not in ("name", "expert", "solver", "num_steps")}
    common |= dict(
        cameras=CAMERAS,
        image_size=16,
        prompt_length=6,
        vision=VisionConfig(stem="patch", patch=8, width=24, depth=2, mlp=40, heads=2),
        attention=AttentionConfig(depth=2, heads=8, kv_heads=2, head_dim=6),
        language=LanguageConfig(width=32, mlp=48, vocabulary=64),
    )
    return Pi0FastConfig(**common, name="pi0_fast", token_length=4, openpi_positions=False)


def random_like(shapes):
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda x: 0.2 * rng.standard_normal(x.shape, np.float32), shapes)


def random_params(config):
    return random_like(nn.unbox(jax.eval_shape(policies.make(config, huggingface.LOSS).init, KEY)))


def computed(kind: str) -> dict[str, np.ndarray]:
    return dict(np.load(FIXTURE / kind / "computed.npz"))


def observation(inputs) -> Observation:
    return Observation(
        images={name: inputs[f"image/{name}"] for name in CAMERAS},
        image_masks={name: inputs[f"mask/{name}"] for name in CAMERAS},
        state=inputs["state"],
        prompt=inputs["prompt"].astype(np.int32),
        prompt_mask=inputs["prompt_mask"],
    )


def logits(config, params, inputs):
    """At all tokens of the prefix [B, S, V], and which of them are real."""

    def read(model, seen):
        prefix = model.read(seen, output=True)
        return model.logits(prefix.output), prefix.mask

    apply = jax.jit(lambda variables, seen: PaliGemma(config).apply(variables, seen, method=read))
    return apply({"params": params["backbone"]}, observation(inputs))


def assert_near(x, y, mask=None):
    """To 2e-5 of the largest: float32 sums in another order; measured 5e-7 to 4e-6."""
    x, y = (np.asarray(a)[... if mask is None else np.asarray(mask)] for a in (x, y))
    np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * np.abs(y).max())


def assert_equal(a, b):
    """The same leaves, to the last bit."""
    a, b = source.flat(a), source.flat(b)
    assert a.keys() == b.keys()
    for path, x in a.items():
        assert x.dtype == b[path].dtype
        np.testing.assert_array_equal(x, b[path], err_msg=path)


def test_logits_are_those_of_transformers(config):
    inputs = computed("paligemma")
    params = huggingface.read_backbone(FIXTURE / "paligemma", config)
    ours, real = logits(config, params, inputs)
    assert_near(ours, inputs["logits"], real)


def outputs(policy, params, inputs):
    """Squared error of the velocity at each number [B, C, A], and a sample from the same noise."""
    seen = observation(inputs)
    noise, t = inputs["noise"], inputs["time"][:, None, None]
    x_t, u_t = t * noise + (1 - t) * inputs["actions"], noise - inputs["actions"]
    v_t = jax.jit(policy.velocity)(params, jax.jit(policy.prefix)(params, seen), x_t, inputs["time"])
    act = jax.jit(policy.act, static_argnames="num_steps")
    return jnp.square(u_t - v_t), act(params, KEY, seen, noise=noise, num_steps=4)


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_losses_and_samples_are_those_of_lerobot(name):
    inputs = computed(name)
    policy, params = huggingface.load(FIXTURE / name, dtype="float32", remat="none", **UNTOLD)
    loss, sample = outputs(policy, params, inputs)
    assert_near(loss, inputs["loss"])
    assert_near(sample, inputs["sample"])


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_the_config_comes_from_shapes_and_from_lerobot_s_own(name):
    config = huggingface.read(FIXTURE / name, num_steps=3, **UNTOLD).config
    assert (config.name, config.cameras, config.chunk, config.num_steps) == (name, CAMERAS, 5, 3)
    assert (config.state_dim, config.action_dim, config.prompt_length, config.image_size) == (3, 4, 6, 16)
    assert config.attention == AttentionConfig(depth=2, heads=8, kv_heads=2, head_dim=6)
    assert config.vision == VisionConfig(stem="patch", patch=8, width=24, depth=2, mlp=40, heads=2)
    assert vars(config.expert) == {"width": 16, "mlp": 32}
    assert vars(config.language) == {"width": 32, "mlp": 48, "vocabulary": 64}


@pytest.mark.parametrize("name", ["pi0", "pi05"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_what_is_exported_for_lerobot_comes_back_to_the_last_bit(name, dtype, tmp_path):
    weights = huggingface.read(FIXTURE / name, param_dtype=dtype, **UNTOLD)
    huggingface.export(tmp_path / "out", weights.config, weights.params)
    again = huggingface.read(tmp_path / "out", **UNTOLD)
    assert again.config == dataclasses.replace(weights.config, dtype=dtype or "float32")
    assert_equal(again.params, weights.params)


def test_what_is_exported_for_transformers_comes_back_to_the_last_bit(config, tmp_path):
    params = huggingface.read_backbone(FIXTURE / "paligemma", config)
    huggingface.export(tmp_path / "out", config, params, layout="paligemma")
    assert_equal(huggingface.read_backbone(tmp_path / "out", config), params)


def test_adapters_and_the_expert_are_not_asked_of_a_backbone(tiny, tmp_path):
    params = random_params(tiny)
    huggingface.export(tmp_path / "out", tiny, params, layout="paligemma")
    rule = LoraRule("backbone/language/.*", 2, 2.0)
    adapted = dataclasses.replace(tiny, lora=LoraConfig((rule,), openpi=False))
    assert_equal(huggingface.read_backbone(tmp_path / "out", adapted), {"backbone": params["backbone"]})


def test_adapters_are_merged_when_lerobot_s_layout_is_written(tiny, tmp_path):
    rule = LoraRule("expert/.*", 2, 2.0)
    adapted = dataclasses.replace(tiny, lora=LoraConfig((rule,), openpi=True))
    params = random_params(adapted)
    huggingface.export(tmp_path / "out", adapted, params, layout="lerobot")
    plain = source.flat(huggingface.read(tmp_path / "out", head_dim=8, vision_heads=2).params)
    kernel = "expert/layers/attention/q/kernel"
    assert not np.array_equal(plain[kernel], source.flat(params)[kernel])


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_full_size_models_have_lerobot_s_leaves_and_their_sizes_are_inferred(name):
    """Of layers: 27 x 16 arrays of SigLIP, 18 x 9 of Gemma, as many of the expert, 2 more each where norms adapt."""
    config = configs.build(TrainConfig, importlib.import_module(f"configs.{name}").get_config()).policy
    abstract = jax.eval_shape(policies.make(config, huggingface.LOSS).init, KEY)
    shapes = jax.eval_shape(lambda params: to_huggingface(params, LEROBOT), abstract)
    others = {"pi0": 3 + 2 + 2 + 1 + 2 + 5 * 2, "pi05": 3 + 2 + 2 + 1 + 1 + 2 + 2 * 18 + 4 * 2}[name]
    assert len(shapes) == 27 * 16 + 18 * 9 * 2 + others
    assert sum(x.size for x in shapes.values()) == {"pi0": 3_238_048_528, "pi05": 3_353_433_872}[name]
    inferred = infer(source.Source(name, shapes, read=None), LEROBOT, {}, None, None)
    assert dataclasses.replace(inferred, dtype=config.dtype) == config


LAYOUTS = {  # as files of these versions, and state dicts, are spelt
    "transformers 4.49 and the hub": TRANSFORMERS,
    "transformers 5.23, a file": TRANSFORMERS._replace(vision="vision_tower."),
    "transformers 5.5, a file": Names(
        *(f"model.{TRANSFORMERS[i]}" for i in range(4)),
    ),
    "transformers 5.5, in memory": Names(
        "model.language_model.embed_tokens",
        "model.language_model.",
        "model.vision_tower.vision_model.",
        "model.multi_modal_projector.",
    ),
    "transformers 5.23, in memory": Names(
        "model.language_model.embed_tokens",
        "model.language_model.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_spelling_of_paligemma_is_read(layout, config, tmp_path):
    params = huggingface.read_backbone(FIXTURE / "paligemma", config)
    names = LAYOUTS[layout]
    theirs = {name: np.asarray(x) for name, x in to_huggingface(params, names).items()}
    if "memory" in layout:
        theirs["lm_head.weight"] = theirs[f"{names.embedding}.weight"]
    theirs |= {f"{names.vision}head.probe": np.ones(3), f"{names.vision}embeddings.position_ids": np.arange(4)}
    safetensors.write(tmp_path / "model.safetensors", theirs)
    assert_equal(huggingface.read_backbone(tmp_path, config), params)


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    read = safetensors.of_safetensors(folder)
    return {name: read.read(name) for name in read.shapes}


def test_lerobot_s_first_names_without_a_prefix_and_with_statistics_are_read(tmp_path):
    arrays = {name.removeprefix("model."): x for name, x in arrays_of(FIXTURE / "pi0").items()}
    arrays["normalize_inputs.buffer_observation_state.mean"] = np.zeros(3)
    embedding = arrays.pop("paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight")
    arrays["paligemma_with_expert.paligemma.lm_head.weight"] = embedding  # as on the hub: tied, under this name only
    safetensors.write(tmp_path / "model.safetensors", arrays)
    assert_equal(huggingface.read(tmp_path, **UNTOLD).params, huggingface.read(FIXTURE / "pi0", **UNTOLD).params)


def test_an_index_of_several_files_is_read(config, tmp_path):
    arrays = arrays_of(FIXTURE / "paligemma")
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(sorted(arrays))}
    for file in set(files.values()):
        safetensors.write(tmp_path / file, {name: arrays[name] for name in arrays if files[name] == file})
    (tmp_path / safetensors.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    whole = huggingface.read_backbone(FIXTURE / "paligemma", config)
    assert_equal(huggingface.read_backbone(tmp_path, config), whole)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-00002-of-00002.safetensors: no such file"):
        huggingface.read_backbone(tmp_path, config)


def test_the_rows_that_transformers_appends_to_the_vocabulary_are_left_out(config, tmp_path):
    arrays = arrays_of(FIXTURE / "paligemma")
    embedding = next(name for name in arrays if name.endswith("embed_tokens.weight"))
    arrays[embedding] = np.concatenate([arrays[embedding], np.ones((64, 32), np.float32)])
    safetensors.write(tmp_path / "model.safetensors", arrays)
    whole = huggingface.read_backbone(FIXTURE / "paligemma", config)
    assert_equal(huggingface.read_backbone(tmp_path, config), whole)
    arrays[embedding] = np.concatenate([arrays[embedding], np.ones((1, 32), np.float32)])
    safetensors.write(tmp_path / "model.safetensors", arrays)
    with pytest.raises(InputError, match=r"embed_tokens.weight is \[129, 32\], should be \[64, 32\]"):
        huggingface.read_backbone(tmp_path, config)


def test_an_output_matrix_of_its_own_is_refused(config, tmp_path):
    arrays = arrays_of(FIXTURE / "paligemma")
    embedding = next(name for name in arrays if name.endswith("embed_tokens.weight"))
    arrays["lm_head.weight"] = arrays[embedding] + 1
    safetensors.write(tmp_path / "model.safetensors", arrays)
    with pytest.raises(InputError, match=r"lm_head.weight is not .*embed_tokens.weight"):
        huggingface.read_backbone(tmp_path, config)


def test_missing_unused_and_transposed_leaves_are_reported_together(tmp_path):
    arrays = arrays_of(FIXTURE / "pi0")
    expert = "model.paligemma_with_expert.gemma_expert.model.layers.1"
    del arrays[f"{expert}.mlp.up_proj.weight"]
    arrays["model.state_proj.weight"] = arrays["model.state_proj.weight"].T
    arrays["model.state_proj.lora_A.weight"] = np.zeros((2, 3), np.float32)
    safetensors.write(tmp_path / "model.safetensors", arrays)
    shutil.copy(FIXTURE / "pi0" / "config.json", tmp_path)
    with pytest.raises(InputError) as report:
        huggingface.load(tmp_path, **UNTOLD)
    assert str(report.value).splitlines() == [
        f"{tmp_path} does not hold lerobot's pi0 of these sizes; nothing was loaded:",
        f"  missing: {expert}.mlp.up_proj.weight [32, 16]",
        "  unused: model.state_proj.lora_A.weight [2, 3]",
        "  unlike: model.state_proj.weight is [3, 16], should be [16, 3]",
    ]


@pytest.mark.parametrize("end", [5, 200, 30_000])
def test_a_truncated_file_is_reported(end, config, tmp_path):
    whole = (FIXTURE / "paligemma" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:end])
    with pytest.raises(InputError, match="model.safetensors is not a whole safetensors file"):
        huggingface.read_backbone(tmp_path, config)


def test_weights_of_another_kind_are_reported(config, tmp_path):
    with pytest.raises(InputError, match="without an expert; only a backbone"):
        huggingface.load(FIXTURE / "paligemma")
    with pytest.raises(InputError, match=r"unused: model\.action_in_proj\.bias"):
        huggingface.read_backbone(FIXTURE / "pi0", config)
    larger = dataclasses.replace(config, vision=dataclasses.replace(config.vision, mlp=48))
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.fc1\.bias is \[40\], should be \[48\]"):
        huggingface.read_backbone(FIXTURE / "paligemma", larger)
    safetensors.write(tmp_path / "model.safetensors", {"encoder.weight": np.zeros(2)})
    with pytest.raises(
        InputError, match="neither transformers' PaliGemma nor lerobot's pi0 or pi05.* encoder; nothing"
    ):
        huggingface.load(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        huggingface.load(tmp_path / "nowhere")


def test_what_has_no_place_there_is_refused(config, tiny, tmp_path):
    params = huggingface.read_backbone(FIXTURE / "paligemma", config)
    with pytest.raises(InputError, match="not for pi0_fast"):
        huggingface.export(tmp_path / "out", config, params, layout="lerobot")
    conv = dataclasses.replace(tiny, vision=dataclasses.replace(tiny.vision, stem="conv"))
    with pytest.raises(InputError, match="no place for the parameter backbone/vision/stem/conv_0"):
        huggingface.export(tmp_path / "out", conv, random_params(conv), layout="lerobot")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists; name another folder"):
        huggingface.export(tmp_path / "out", config, params, layout="paligemma")


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> Path:
    """Python of an environment with transformers and lerobot."""
    folder = tmp_path_factory.mktemp("environment")
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--python", os.environ.get("PIZERO_NIGHTLY_PYTHON", "3.12"), folder], check=True)
    requirements = FIXTURE / "requirements.txt"
    subprocess.run([uv, "pip", "install", "--python", folder / "bin" / "python", "-r", requirements], check=True)
    return folder / "bin" / "python"


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
@pytest.mark.parametrize("kind", ["paligemma", "pi0", "pi05"])
def test_transformers_and_lerobot_load_what_is_exported_and_compute_the_same(kind, config, environment, tmp_path):
    """With other numbers than those of the fixture."""
    weights = None if kind == "paligemma" else huggingface.read(FIXTURE / kind, dtype="float32", **UNTOLD)
    used = weights.config if weights else config
    old = weights.params if weights else huggingface.read_backbone(FIXTURE / "paligemma", config)
    params = random_like(old)
    huggingface.export(tmp_path / "out", used, params, layout="lerobot" if weights else "paligemma")
    inputs, program = FIXTURE / kind / "computed.npz", Path(__file__).with_name("make_huggingface.py")
    subprocess.run([environment, program, "run", kind, tmp_path / "out", inputs, tmp_path / "theirs.npz"], check=True)
    theirs, inputs = np.load(tmp_path / "theirs.npz"), computed(kind)
    if kind == "paligemma":
        ours, real = logits(config, params, inputs)
        assert_near(ours, theirs["logits"], real)
    else:
        loss, sample = outputs(policies.make(used, huggingface.LOSS), params, inputs)
        assert_near(loss, theirs["loss"])
        assert_near(sample, theirs["sample"])
