import json
import sys
from types import SimpleNamespace

import pytest

from pizero_jax.config import WandbConfig
from pizero_jax.errors import InputError
from pizero_jax.train.metrics import MetricsLog


@pytest.fixture
def runs(monkeypatch):
    """What `wandb.init` is called with; its runs take what they are given."""
    calls = []

    def init(**settings):
        calls.append(settings)
        return SimpleNamespace(log=lambda values, step: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **_: None))
    return calls


def test_a_run_that_goes_on_is_one_run_of_wandb(tmp_path, runs):
    config = WandbConfig(mode="offline", project="arms", group="seeds", tags=("pi0",))
    for name in ("first", "first", "second"):
        (tmp_path / name).mkdir(exist_ok=True)
        MetricsLog(tmp_path / name, {}, config).close()
    assert runs[0]["id"] == runs[1]["id"] != runs[2]["id"]
    assert {call["resume"] for call in runs} == {"allow"}
    assert (runs[0]["project"], runs[0]["group"], runs[0]["tags"]) == ("arms", "seeds", ("pi0",))


@pytest.fixture
def unreachable(monkeypatch):
    """The modes that `wandb.init` is called with where W&B is logged in but out of reach."""
    modes = []

    class Unreachable(Exception):
        pass

    def init(*, mode, **_):
        assert "in use" not in modes, "a run that failed keeps its id"
        modes.append(mode)
        if mode == "online":
            modes.append("in use")
            raise Unreachable("context deadline exceeded\nwhile retrying")
        return SimpleNamespace(log=lambda values, step: None, finish=lambda: None)

    wandb = SimpleNamespace(
        init=init, Settings=lambda **_: None, Error=Unreachable, teardown=lambda: modes.remove("in use")
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_API_KEY", "known")
    return modes


def test_a_run_goes_on_offline_where_wandb_cannot_be_reached(tmp_path, unreachable, caplog):
    MetricsLog(tmp_path, {}, WandbConfig(mode="auto", project="", group="", tags=())).close()
    assert unreachable == ["online", "offline"]
    assert "W&B cannot be used: context deadline exceeded; this run is logged offline" in caplog.text


def test_a_run_that_has_to_be_online_says_so(tmp_path, unreachable):
    with pytest.raises(InputError, match="config.wandb.mode = 'online', but W&B .* deadline exceeded; 'auto'"):
        MetricsLog(tmp_path, {}, WandbConfig(mode="online", project="", group="", tags=()))
    assert "offline" not in unreachable


def test_records_carry_their_time_and_those_of_later_steps_are_dropped_on_resuming(tmp_path):
    disabled = WandbConfig(mode="disabled", project="", group="", tags=())
    log = MetricsLog(tmp_path, {}, disabled)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1.0 / step})
    log.close()
    MetricsLog(tmp_path, {}, disabled, resume_step=2).close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert records[0]["time"] <= records[1]["time"]
