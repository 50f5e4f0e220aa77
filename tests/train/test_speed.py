import dataclasses
import gzip

import jax
import jax.numpy as jnp
import pytest

from configs import pi0
from pizero_jax import config as configs
from pizero_jax.train import chips, flops, loop, speed


def test_rates_are_those_of_the_published_model(monkeypatch):
    config = configs.build(configs.TrainConfig, pi0.get_config())
    values = speed.rates(config, 10.0)
    # 3 x 256 picture and 48 prompt tokens, a state and 50 actions; 12.1 TFLOP a sample, less 4.5% that is not computed.
    assert values["tokens_per_s"] == 10 * (3 * 256 + 48 + 1 + 50)
    assert values["tflops_per_chip"] == pytest.approx(10 * 12.1 * (1 - 0.045), rel=0.01)
    assert "mfu" not in values
    monkeypatch.setattr(speed, "peak_flops", lambda kind: 989e12)
    assert speed.rates(config, 10.0)["mfu"] == pytest.approx(values["tflops_per_chip"] / 989)


@pytest.mark.parametrize(("name", "tokens"), [("pi05", 10), ("pi05_insulated", 16), ("pi0_fast", 6), ("pi0_small", 11)])
def test_tokens_are_counted_for_every_policy(variants, name, tokens):
    config = dataclasses.replace(variants[name], cameras=("base",))
    assert flops.tokens_per_row(config, 2) == 4 + 6 + tokens  # a picture, the prompt


def test_a_chip_s_peak_is_found_by_its_kind():
    assert chips.peak_flops("NVIDIA H200") == 989e12
    assert chips.peak_flops("TPU v5 lite") == 197e12
    assert chips.peak_flops("cpu") is None


def test_goodput_counts_what_was_lost_between_two_runs():
    def record(time, seconds):
        return {"time": time, "seconds": seconds}

    unbroken = [record(110, 10), {"time": 111, "val/loss": 1}, record(121, 10)]
    assert speed.goodput(unbroken) == pytest.approx(20 / 21)
    assert speed.goodput([*unbroken, record(171, 10)]) == pytest.approx(30 / 71)  # it was down for 40 s
    assert speed.goodput([]) is None


def test_the_stopwatch_tells_what_stopped_it():
    clock = loop.Stopwatch(8)
    for _ in range(2):
        with clock.stopped("checkpoint_s"):
            pass
    values = clock.read(1)
    assert values["seconds"] > 0
    assert values["checkpoint_s"] >= 0
    assert "checkpoint_s" not in clock.read(1)


def test_a_trace_of_the_asked_steps_holds_events(tmp_path):
    trace, step = speed.Trace((1, 3), tmp_path), jax.jit(lambda x: x @ x)
    trace.see(0)
    for done in range(1, 5):
        trace.see(done, step(jnp.ones((64, 64))))
        assert bool(list(tmp_path.rglob("*.xplane.pb"))) == (done >= 3)
    trace.stop()
    (events,) = tmp_path.rglob("*.trace.json.gz")
    assert b"PjitFunction" in gzip.decompress(events.read_bytes())


def test_a_run_that_ends_early_still_writes_its_trace(tmp_path):
    trace = speed.Trace((0, 100), tmp_path)
    trace.see(0)
    trace.stop(jnp.ones(3) + 1)
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert not speed.Trace((), tmp_path / "none").stop()
