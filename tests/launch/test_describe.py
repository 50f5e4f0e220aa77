import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = {  # known counts, and what learns: openpi's arrays; adapters, vision tower and projections with LoRA
    "pi0": (3_238_048_528, 3_238_048_528),
    "pi05": (3_353_433_872, 3_353_433_872),
    "pi0_fast": (2_923_335_408, 2_923_335_408),
    "pi0_lora": (3_288_036_112, 27_869_184 + 22_118_400 + 414_803_696 + 3_248_160),
    "pi05_lora": (3_353_433_872 + 27_869_184 + 22_118_400, 27_869_184 + 22_118_400 + 414_803_696 + 2_165_792),
    "pi0_fast_lora": (2_951_204_592, 27_869_184 + 414_803_696),
}


@pytest.fixture(scope="module")
def described(forked):
    lines = [[f"--config={ROOT}/configs/{name}.py", "--json"] for name in CONFIGS]
    results = forked("launch.describe", lines)
    return {name: json.loads(result.stdout) for name, result in zip(CONFIGS, results, strict=True)}


@pytest.mark.parametrize("name", CONFIGS)
def test_full_size_models_are_counted_without_being_allocated(described, name):
    assert (described[name]["parameters"], described[name]["learning"]) == CONFIGS[name]
    assert sum(row["parameters"] for row in described[name]["rows"]) == CONFIGS[name][0]


def test_bytes_of_the_state_follow_from_types_and_from_what_learns(described):
    parameters, learning = CONFIGS["pi0_lora"]
    size = described["pi0_lora"]["bytes"]
    assert (size["parameters that learn"], size["frozen"]) == (4 * learning, 2 * (parameters - learning))
    assert size["average"] == 0
    assert described["pi0"]["bytes"]["average"] == 4 * CONFIGS["pi0"][0]
    assert size["optimiser"] == pytest.approx(8 * learning, rel=1e-6)  # two moments, and counts


def test_tables_name_leaves_parts_and_totals(forked):
    (result,) = forked("launch.describe", [[f"--config={ROOT}/configs/pi05_lora.py"]])
    for text in ("| backbone/language/layers/attention/q/lora_a", "18 x 8 x 2048 x 16", "bfloat16", "414,803,696"):
        assert text in result.stdout
    assert "FLOPs, acting, per chunk" in result.stdout


def test_neither_config_nor_checkpoint_is_a_clear_error_and_both_are(forked):
    neither, both = forked("launch.describe", [[], [f"--config={ROOT}/configs/pi0.py", "--checkpoint=runs/demo"]])
    assert (neither.returncode, both.returncode) == (2, 2)
    assert "--config is missing" in neither.stderr
    assert "--config and --checkpoint both name what is described" in both.stderr
