"""A folder with a policy, run by a Python that does not import this package."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pizero_jax import policies
from pizero_jax.data.transforms import Processor
from pizero_jax.errors import InputError
from pizero_jax.serve.compiled import Solver, compile_policy
from pizero_jax.serve.export import export
from pizero_jax.serve.quantize import with_weights
from pizero_jax.serve.request import Names, Reader
from pizero_jax.serve.standalone import Exported
from tests.conftest import ONE_SAMPLE

RUN = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from policy import Exported

policy, found = Exported(sys.argv[1]), []
given = np.load(sys.argv[2])
for i in range(len(given["state"])):
    images = {"front": given["front"][i], "wrist": None if i == 1 else given["wrist"][i]}
    found.append(policy.infer(images, given["state"][i], "reach_the target", seed=7, look=i))
np.save(sys.argv[3], np.stack(found))
assert "pizero_jax" not in sys.modules and "flax" not in sys.modules
"""


@pytest.fixture(scope="module")
def relative(network):
    """The network for a data set whose first action is relative to the state, and whose statistics are uneven."""
    data = dataclasses.replace(network.config.data, delta=(1,), normalization="quantile", prompt="pi0")
    rng = np.random.default_rng(0)

    def uneven(group):
        low = rng.standard_normal(len(group.mean))
        return dataclasses.replace(group, q01=low, q99=low + rng.uniform(0.3, 3, len(low)), min=low - 9, max=low + 9)

    statistics = {name: uneven(group) for name, group in network.statistics.items()}
    processor = Processor(network.config.policy, data, statistics)
    config = dataclasses.replace(network.config, data=data)
    return dataclasses.replace(network, config=config, statistics=statistics, processor=processor)


def given(count=3):
    rng = np.random.default_rng(1)
    pictures = {name: rng.integers(0, 256, (count, 16, 16, 3), np.uint8) for name in ("front", "wrist")}
    return pictures | {"state": rng.standard_normal((count, 3)).astype(np.float32)}


def outside(folder: Path, tmp_path: Path, python: str = sys.executable) -> np.ndarray:
    """Actions of an exported folder, found where this repository is not."""
    np.savez(tmp_path / "given.npz", **given())
    line = [python, "-c", RUN, folder, tmp_path / "given.npz", tmp_path / "found.npy"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return np.load(tmp_path / "found.npy")


@pytest.mark.parametrize("weights", [None, "bfloat16", "int8"])
def test_a_folder_acts_as_the_policy_does_bit_for_bit(relative, tmp_path, weights):
    trained = with_weights(relative, weights)
    export(trained, tmp_path / "exported", ["cpu"], 2)
    programs, inputs = compile_policy(trained, (1,), (Solver(2, "euler"),)), given()
    found = outside(tmp_path / "exported", tmp_path)
    for i, actions in enumerate(found):
        cameras = ["front"] if i == 1 else ["front", "wrist"]
        images, state = {camera: inputs[camera][i] for camera in cameras}, inputs["state"][i]
        row = relative.processor.observation(images, state, "reach_the target")
        np.testing.assert_array_equal(actions, programs.infer([row], state[None], [(7, i)], Solver(2, "euler"))[0][0])
    assert np.ptp(found, axis=0).min() > 1e-3  # what is seen matters


def test_a_wrong_call_is_refused_by_name(relative, tmp_path):
    from pizero_jax.serve.standalone import Exported

    export(relative, tmp_path, ["cpu"])
    policy, picture, state = Exported(tmp_path), np.zeros((16, 16, 3), np.uint8), np.zeros(3)
    for images, numbers, prompt, message in [
        ({"top": picture}, state, "reach", "camera 'top' is unknown; there are front, wrist"),
        ({"front": picture[:8]}, state, "reach", r"'front' should be uint8 \[16, 16, 3\]"),
        ({"front": picture / 255}, state, "reach", "should be uint8"),
        ({"front": picture}, np.zeros(4), "reach", "3 numbers"),
        ({"front": picture}, np.full(3, np.nan), "reach", "a number that is not finite"),
        ({"front": picture}, state, "x" * 99, "takes 101 tokens; the policy reads 24"),
    ]:
        with pytest.raises(ValueError, match=message):
            policy.infer(images, numbers, prompt)
    (tmp_path / "params.npz").unlink()
    with pytest.raises(ValueError, match="holds no whole exported policy"):
        Exported(tmp_path)


def test_nothing_is_written_over_and_what_cannot_be_exported_is_named(relative, tmp_path):
    (tmp_path / "thesis.tex").write_text("unsaved")
    with pytest.raises(InputError, match="is not empty"):
        export(relative, tmp_path, ["cpu"])
    tokens = dataclasses.replace(relative, policy=relative.policy._replace(velocity=None))
    with pytest.raises(InputError, match="'pi0' has no flow"):
        export(tokens, tmp_path / "new", ["cpu"])
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.nightly
@pytest.mark.skipif("PIZERO_NIGHTLY" not in os.environ, reason="builds an environment of its own")
def test_a_folder_acts_bit_for_bit_where_only_jax_and_numpy_are(relative, tmp_path):
    import jax

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare/bin/python")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", f"jax=={jax.__version__}", f"numpy=={np.__version__}", "flatbuffers"],
        check=True,
    )
    export(relative, tmp_path / "exported", ["cpu", "cuda", "tpu"])
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    assert not {p["name"] for p in json.loads(listed.stdout)} & {"pizero_jax", "flax", "sentencepiece", "pillow"}
    here = outside(tmp_path / "exported", tmp_path)
    np.testing.assert_array_equal(outside(tmp_path / "exported", tmp_path, python), here)


def test_a_policy_that_reads_no_words_acts_whatever_the_prompt(network, variants, random_params, tmp_path):
    like, wordless = network.config.policy, variants["diffusion_policy"]
    same = {name: getattr(like, name) for name in ("cameras", "image_size", "state_dim", "action_dim", "chunk")}
    config = dataclasses.replace(wordless, **same, num_steps=2)
    policy, run = policies.make(config, ONE_SAMPLE), dataclasses.replace(network.config, policy=config)
    processor = Processor(config, run.data, network.statistics)
    trained = dataclasses.replace(network, policy=policy, params=random_params(policy), config=run, processor=processor)
    export(trained, tmp_path / "exported", ["cpu"])
    exported, image = Exported(tmp_path / "exported"), given()["front"][0]
    unsaid, said = (exported.infer({"front": image}, np.zeros(3), prompt, seed=7) for prompt in ("", "reach"))
    np.testing.assert_array_equal(unsaid, said)

    reader = Reader(trained, (), Names())
    request = reader.read({"front": image, "wrist": None, "state": np.zeros(3, np.float32)})  # without a prompt
    compiled = compile_policy(trained, (1,))
    np.testing.assert_array_equal(said, compiled.infer([request.row], np.zeros((1, 3)), [(7, 0)], None)[0][0])
