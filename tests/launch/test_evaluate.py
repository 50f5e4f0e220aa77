"""From demonstrations to success rates on the toy, by the commands that users run."""

import json

import pytest

from pizero_jax.report.intervals import wilson

COLLECT = ["--config=configs/collect_reach_toy.py", "--config.env.tasks=('reach-red',)", "--config.demonstrations=4"]
SMALL = [
    "--config=configs/pi0_metaworld.py", "--config.wandb.mode=disabled", "--config.batch_size=4",
    "--config.steps=2",
    "--config.policy.state_dim=2", "--config.policy.action_dim=2", "--config.policy.chunk=4",
    "--config.policy.unroll=1",
    "--config.policy.vision.width=32", "--config.policy.language.width=16", "--config.policy.expert.width=16",
    "--config.policy.attention.depth=1", "--config.env.execute=4", "--config.env.name=reach_toy",
    "--config.env.tasks=('reach-red',)", "--config.env.max_steps=12", "--config.validation.batches=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(forked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    data = folder / "data"
    [collected] = forked("launch.collect", [[*COLLECT, f"--config.path={data}"]])
    assert collected.returncode == 0, collected.stderr
    [result] = forked("launch.train", [[*SMALL, f"--config.data.path={data}", f"--workdir={folder / 'run'}", "--json"]])
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["step"] == 2
    return folder / "run"


@pytest.mark.slow
def test_evaluation_scores_the_same_start_states_sighted_and_blind(forked, trained):
    command = [f"--checkpoint={trained}", "--episodes=3", "--json"]
    several = [*command, "--noblind", "--samples=3", "--tasks=reach-red"]
    first, again, table, chosen = forked("launch.evaluate", [command, command, command[:-1], several])
    assert first.returncode == again.returncode == table.returncode == chosen.returncode == 0, first.stderr
    results = json.loads(first.stdout)
    assert results == json.loads(again.stdout), "the same seed gives the same episodes"
    assert results == json.loads((trained / "evaluation.json").read_text())
    for group in ("tasks", "blind"):
        row = results[group]["reach-red"]
        assert row["episodes"] == 3
        assert row["rate"] == row["successes"] / 3
        assert tuple(row["interval"]) == pytest.approx(wilson(row["successes"], 3))
    assert results["checkpoint"]["step"] == 2
    assert json.loads(chosen.stdout) == json.loads(
        (trained / "evaluations/tasks=reach-red,samples=3/evaluation.json").read_text()
    ), "asked for otherwise, it leaves the results of the run alone"
    assert json.loads(chosen.stdout)["settings"]["samples"] == 3
    assert json.loads(chosen.stdout)["tasks"]["reach-red"]["episodes"] == 3
    assert "95% interval" in table.stdout
    for picture in ("episodes.png", "episodes.gif", "success.png"):
        assert (trained / picture).stat().st_size > 500


@pytest.mark.slow
def test_blinded_policy_does_not_see(trained):
    import jax
    import numpy as np

    import pizero_jax

    policy = pizero_jax.load(trained)

    def actions(policy, brightness):
        images = {camera: np.full((64, 64, 3), brightness, np.uint8) for camera in ("image", "wrist_image")}
        return policy.infer({"images": images, "state": np.zeros(2)}, "reach the red target", jax.random.key(0))

    assert not np.array_equal(actions(policy, 30), actions(policy, 200))
    np.testing.assert_array_equal(actions(policy.blinded(), 30), actions(policy.blinded(), 200))
    np.testing.assert_array_equal(actions(policy.blinded(), 30), actions(policy, 0))


@pytest.mark.slow
def test_mistakes_are_one_clear_line(forked, trained, tmp_path):
    cases = [
        ([], ["--checkpoint is missing"]),
        ([f"--checkpoint={tmp_path}"], ["--checkpoint", str(tmp_path), "checkpoints"]),
        ([f"--checkpoint={trained}", "--step=77"], ["no checkpoint of step 77", "[2]"]),
        ([f"--checkpoint={trained}", "--tasks=reach-rde"], ["reach-rde", "reach-red"]),
        ([f"--checkpoint={trained}", "--execute=5"], ["--execute=5", "config.policy.chunk = 4"]),
    ]
    for (flags, words), result in zip(cases, forked("launch.evaluate", [case[0] for case in cases]), strict=True):
        assert result.returncode == 2, flags
        assert "Traceback" not in result.stderr
        assert all(word in result.stderr for word in words), result.stderr
