import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.config import LoraConfig, LoraRule
from pizero_jax.errors import InputError
from pizero_jax.weights import openpi, paligemma, source


@pytest.fixture
def arrays(tiny_params):
    """The backbone under big_vision's names."""
    theirs = openpi.to_openpi(jax.tree.map(np.asarray, {"backbone": tiny_params["backbone"]}))
    return {name.replace("PaliGemma/", "params/"): x for name, x in theirs.items()}


def test_the_names_are_those_of_the_released_files(arrays):
    """Examples with the axes that tell transpositions: SigLIP's stem and heads, Gemma's stacked keys and values."""
    assert {name: arrays[name].shape for name in arrays if "bias" not in name and "Layer" not in name} == {
        "params/img/embedding/kernel": (8, 8, 3, 24),
        "params/img/pos_embedding": (1, 4, 24),
        "params/img/head/kernel": (24, 32),
        "params/img/Transformer/encoder_norm/scale": (24,),
        "params/img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel": (2, 24, 40),
        "params/img/Transformer/encoderblock/MlpBlock_0/Dense_1/kernel": (2, 40, 24),
        **{
            f"params/img/Transformer/encoderblock/MultiHeadDotProductAttention_0/{name}/kernel": (2, 24, 2, 12)
            for name in ("query", "key", "value")
        },
        "params/img/Transformer/encoderblock/MultiHeadDotProductAttention_0/out/kernel": (2, 2, 12, 24),
        "params/llm/embedder/input_embedding": (16, 32),
        "params/llm/final_norm/scale": (32,),
        "params/llm/layers/pre_attention_norm/scale": (2, 32),
        "params/llm/layers/pre_ffw_norm/scale": (2, 32),
        "params/llm/layers/attn/q_einsum/w": (2, 4, 32, 8),
        "params/llm/layers/attn/kv_einsum/w": (2, 2, 2, 32, 8),
        "params/llm/layers/attn/attn_vec_einsum/w": (2, 4, 8, 32),
        "params/llm/layers/mlp/gating_einsum": (2, 2, 32, 48),
        "params/llm/layers/mlp/linear": (2, 48, 32),
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_backbone_comes_back_to_the_last_bit(dtype, save, arrays, tiny, tiny_params, tmp_path):
    """NumPy writes bfloat16 as two bytes without a type."""
    save(tmp_path / "a.npz", **{name: x.astype(jnp.dtype(dtype)) for name, x in arrays.items()})
    params = paligemma.read(tmp_path / "a.npz", tiny)
    assert list(params) == ["backbone"]
    ours = source.flat({"backbone": tiny_params["backbone"]})
    assert source.flat(params).keys() == ours.keys()
    for path, x in source.flat(params).items():
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, ours[path].astype(dtype), err_msg=path)


def test_adapters_stay_fresh_and_other_parts_of_the_file_are_left_alone(arrays, tiny, tmp_path):
    adapted = dataclasses.replace(tiny, lora=LoraConfig((LoraRule(".*", 2, 2.0),), openpi=False))
    np.savez(tmp_path / "a.npz", **arrays, **{"opt/count": np.array(3)})
    params = paligemma.read(tmp_path / "a.npz", adapted, param_dtype="bfloat16")
    assert not [path for path in source.flat(params) if "lora" in path or not path.startswith("backbone/")]
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"bfloat16"}


def test_extra_arrays_are_left_out_and_named(arrays, tiny, tmp_path, caplog):
    np.savez(tmp_path / "a.npz", **arrays, **{"params/llm/extra": np.zeros(3, np.float32)})
    params = paligemma.read(tmp_path / "a.npz", tiny)
    assert "left over, unused: params/llm/extra" in caplog.text
    assert "extra" not in params["backbone"]


def test_missing_unused_and_transposed_leaves_are_reported_together(arrays, tiny, tmp_path):
    del arrays["params/llm/layers/attn/q_einsum/w"]
    arrays["params/img/head/kernel"] = arrays["params/img/head/kernel"].T
    arrays["params/llm/extra"] = np.zeros(3, np.float32)
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError) as report:
        paligemma.read(tmp_path / "a.npz", tiny)
    assert str(report.value).splitlines() == [
        f"{tmp_path / 'a.npz'} does not hold the PaliGemma of config.policy; nothing was loaded:",
        "  missing: params/llm/layers/attn/q_einsum/w [2, 4, 32, 8]",
        "  unused: params/llm/extra [3]",
        "  unlike: params/img/head/kernel is [32, 24], should be [24, 32]",
    ]


def test_a_paligemma_of_another_resolution_is_reported(arrays, tiny, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    larger = dataclasses.replace(tiny, image_size=24)
    with pytest.raises(InputError, match=r"unlike: params/img/pos_embedding is \[1, 4, 24\], should be \[1, 9, 24\]"):
        paligemma.read(tmp_path / "a.npz", larger)


def test_a_file_that_is_missing_truncated_or_damaged_is_reported(arrays, tiny, tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(InputError, match="does not exist"):
        paligemma.read(path, tiny)
    np.savez(path, **arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is not a whole .npz file"):
        paligemma.read(path, tiny)
    at = len(whole) // 2  # in the middle of some array's numbers
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(InputError, match="cannot be read: Bad CRC-32"):
        paligemma.read(path, tiny)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(InputError, match="is not a whole .npz file"):
        paligemma.read(tmp_path / "b.npy", tiny)
