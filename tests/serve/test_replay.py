"""A recorded episode, asked by the server itself, and the page that shows it."""

import asyncio
import dataclasses
import json

import numpy as np
import pytest

from pizero_jax.data.episodes import Episode
from pizero_jax.errors import InputError
from pizero_jax.serve import replay as replaying
from pizero_jax.serve.request import Names
from tests.serve.conftest import ACTION, CHUNK, SIZE, STATE
from tests.serve.test_live_page import wait_until
from tests.serve.test_server import get, until

STEPS, EXECUTE = 20, 4


@pytest.fixture
def episode():
    greys = np.linspace(0, 200, STEPS).astype(np.uint8)
    pictures = [np.full((SIZE, SIZE, 3), grey) for grey in greys]
    actions = np.sin(np.arange(STEPS * ACTION, dtype=np.float32)).reshape(STEPS, ACTION)
    state = np.zeros((STEPS, STATE), np.float32)
    return Episode({"front": pictures, "wrist": pictures}, state, actions, ("reach",), 3, np.ones(STEPS, bool))


@pytest.fixture
def replayed(served, episode):
    """A function of settings and hz: a server that replays, for `with`."""

    def start(hz=1000.0, **settings):
        return served(beside=lambda server: replaying.replay(server, episode, EXECUTE, hz), **settings)

    return start


def test_what_is_shown_is_what_was_recorded_around_each_look(replayed, episode):
    with replayed(names=Names(state=("joints",))) as server:

        def shown():
            return json.loads(get(server.address, "/live.json")[1])["clients"]

        until(lambda: shown() and shown()[0]["looks"] > 7)  # more than one round
        client = shown()[0]
        assert client["peer"] == "replay of episode 3"
        assert client["prompt"] == "reach"
        starts = [start for start, _ in client["chunks"]]
        np.testing.assert_array_equal(np.diff(starts), EXECUTE)
        rounds = np.concatenate([episode.actions] * (2 + client["looks"] * EXECUTE // STEPS))
        first = client["steps"] - len(client["executed"])
        np.testing.assert_allclose(client["executed"], rounds[first : client["steps"]], rtol=1e-6)
        at = client["steps"] % STEPS
        np.testing.assert_allclose(client["recorded"], episode.actions[at : at + CHUNK], rtol=1e-6)


def test_a_busy_server_is_asked_again(served, slow, episode):
    class Full:
        settings, calls = dataclasses.make_dataclass("S", ["names"])(Names()), 0

        async def answer(self, peer, pace, read):
            self.calls += 1
            raise replaying.Busy("busy")

    async def run(server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(replaying.replay(server, episode, EXECUTE, 1000.0), 0.2)

    server = Full()
    asyncio.run(run(server))
    assert server.calls > 3


@pytest.mark.parametrize(
    ("named", "message"), [("/nowhere", "--replay=/nowhere: .*neither"), (":99", "has episodes 0 to 0")]
)
def test_an_episode_that_is_not_there_is_named(seeing, episode, monkeypatch, named, message):
    if named == ":99":
        monkeypatch.setattr(replaying, "open_episodes", lambda *_: [episode])
    with pytest.raises(InputError, match=message):
        replaying.open_episode(seeing, named)


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_the_predicted_chunk_against_the_recorded_actions(browser, replayed, tmp_path, width):
    with replayed(hz=40.0) as server:
        browser.open(server.address.replace("ws:", "http:"), width)
        wait_until(browser, "document.querySelectorAll('path.recorded').length")
        wait_until(browser, "document.querySelectorAll('path.earlier').length > 4")
        assert [fault for fault in browser.faults() if not fault.endswith("/live.json")] == []
        assert browser.evaluate("document.querySelector('h2').textContent").startswith("replay of episode 3")
        lines = "chunk", "executed", "recorded"
        expression = "[...document.querySelectorAll('path.%s')].map(x => x.getAttribute('d').split(' ')[0])"
        chunk, executed, recorded = (browser.evaluate(expression % line) for line in lines)
        assert len(chunk) == len(executed) == len(recorded) == ACTION
        browser.screenshot(tmp_path / "page.png")
