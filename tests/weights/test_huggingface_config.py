"""What `config.json` beside lerobot's weights may say, or leave out."""

import json
import shutil
from pathlib import Path

import pytest

from pizero_jax.errors import InputError
from pizero_jax.weights import huggingface

FIXTURE = Path(__file__).parent / "huggingface" / "pi0" / "model.safetensors"
UNTOLD = {"head_dim": 6, "vision_heads": 2}  # what neither shapes nor lerobot's config.json tell
OPENPI_S = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")


@pytest.mark.parametrize(
    ("told", "cameras"),
    [
        ({"input_features": None, "chunk_size": None}, OPENPI_S),
        ({"input_features": {"observation.images.top": {"shape": [3, 2, 2]}, "observation.state": {}}}, ("top",)),
        ({"input_features": {"observation.image": {"type": "VISUAL"}}}, ("observation.image",)),
    ],
)
def test_cameras_are_told_by_type_or_by_name_or_not_at_all(tmp_path, told, cameras):
    shutil.copy(FIXTURE, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(told))
    config = huggingface.read(tmp_path, **UNTOLD).config
    assert config.cameras == cameras
    assert config.chunk == 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"config.json holds \[1\]; it should hold an object"),
        ("{", "config.json is not JSON"),
        ('{"input_features": [1]}', r"input_features = \[1\] should be an object of objects"),
        ('{"input_features": {"a": 1}}', r'input_features = \{"a": 1\} should be an object of objects'),
    ],
)
def test_a_config_of_another_form_is_reported(tmp_path, text, message):
    shutil.copy(FIXTURE, tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        huggingface.read(tmp_path)
