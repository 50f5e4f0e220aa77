"""The server's page in a browser, while a robot asks."""

import time

import numpy as np
import pytest

from pizero_jax.serve.brokers import ChunkBroker
from pizero_jax.serve.client import Client
from tests.serve.conftest import ACTION, SIZE

HOSTILE = "<img src=x onerror=1>"


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_what_was_asked_predicted_and_executed(browser, served, tmp_path, width):
    waves = np.sin(np.linspace(0, 9, 40))
    with served() as server, Client(server.address) as client:
        browser.open(server.address.replace("ws:", "http:"), width)
        wait_until(browser, "!document.getElementById('none').hidden")
        act = ChunkBroker(client.infer, 4, report=True)
        for step in range(40):
            grey = np.tile(np.linspace(0, 100 + 50 * waves[step], SIZE)[:, None, None], (1, SIZE, 3)).astype(np.uint8)
            act({"image": grey, "wrist": 255 - grey, "state": np.zeros(3), "prompt": HOSTILE})
        wait_until(
            browser, "document.querySelectorAll('#clients svg').length && document.querySelector('#latencies td')"
        )
        wait_until(browser, "document.querySelector('h2').textContent.includes('10 requests')")
        assert [fault for fault in browser.faults() if not fault.endswith("/live.json")] == []
        assert browser.evaluate("document.querySelector('.prompt').textContent") == HOSTILE
        assert browser.evaluate("[...document.images].map(x => [x.alt, x.naturalWidth])") == [
            ["front", SIZE],
            ["wrist", SIZE],
        ]
        counts = {name: f"document.querySelectorAll('path.{name}').length" for name in ("chunk", "earlier", "executed")}
        found = {name: browser.evaluate(expression) for name, expression in counts.items()}
        assert found == {"chunk": ACTION, "earlier": 9 * ACTION, "executed": ACTION}
        points = browser.evaluate("document.querySelector('path.executed').getAttribute('d').split(' ').length")
        assert points == 36  # the last four are not known to the server yet
        assert browser.evaluate(
            "[...document.querySelectorAll('svg')].every(x => x.getBoundingClientRect().height > 40)"
        )
        browser.screenshot(tmp_path / "page.png")
    wait_until(browser, "document.getElementById('state').className == 'lost'")


def wait_until(browser, expression: str) -> None:
    deadline = time.monotonic() + 60
    while not browser.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < deadline, browser.evaluate("document.body.innerText")
        time.sleep(0.1)
