import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from websockets.sync.server import serve

from pizero_jax.serve import msgpack_arrays
from pizero_jax.serve.client import Client, Refused

ROOT = Path(__file__).parents[2]


@pytest.fixture
def answering():
    """A function: a server whose every connection is handled by `handle`; gives its address."""
    servers = []

    def start(handle, port=0):
        server = serve(handle, "127.0.0.1", port, compression=None)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"

    yield start
    for server in servers:
        server.shutdown()


def test_it_is_imported_without_jax_and_without_the_rest_of_the_package():
    found = subprocess.run(
        [sys.executable, "-c", "import sys, pizero_jax.serve.client, pizero_jax.serve.brokers; print(*sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    ours = {name for name in found if name.split(".")[0] == "pizero_jax"}
    parts = {"errors", "serve", "serve.client", "serve.brokers", "serve.msgpack_arrays"}
    assert ours == {"pizero_jax", *(f"pizero_jax.{part}" for part in parts)}
    others = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names)
    assert {"numpy", "msgpack", "websockets"} <= others
    assert not others & {"jax", "jaxlib", "flax", "absl", "ml_collections", "etils", "cv2", "scipy"}


def test_it_and_the_brokers_need_numpy_msgpack_and_websockets_only():
    others = ("jaxtyping", "jax", "scipy", "absl", "cv2", "PIL", "simplejpeg", "prometheus_client")
    hidden = f"import sys; sys.modules.update(dict.fromkeys({others}))"
    line = [sys.executable, "-c", f"{hidden}; import pizero_jax.serve.client, pizero_jax.serve.brokers"]
    subprocess.run(line, cwd=ROOT, check=True)


def test_a_request_that_is_too_large_is_refused_once(served, observe):
    with served(message=10_000) as server, Client(server.address) as client:
        with pytest.raises(Refused, match="too large for the server: .* exceeds limit of 10000 bytes"):
            client.infer(observe() | {"images": np.zeros((100, 100, 3), np.uint8)})
        assert client.infer(observe())["actions"].shape == (6, 2)


def test_an_outage_is_logged_once(caplog):
    with pytest.raises(ConnectionError):
        Client("ws://localhost:1", patience=0.5)
    assert caplog.text.count("ws://localhost:1: ") == 1
    assert "refused" in caplog.text


def test_it_connects_again_when_the_server_comes_back(served, observe):
    with served() as server:
        client, port = Client(server.address), server.port
        first = client.infer(observe())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.infer, observe())
        time.sleep(0.3)  # it tries meanwhile
        with served(port=port):
            np.testing.assert_array_equal(answer.result(60)["actions"], first["actions"])
            client.close()


def test_a_request_whose_connection_is_lost_is_sent_again(answering):
    asked = []

    def handle(connection):
        connection.send(msgpack_arrays.pack({"number": len(asked)}))
        asked.append(msgpack_arrays.unpack(connection.recv()))
        if len(asked) > 1:
            connection.send(msgpack_arrays.pack({"actions": np.ones((2, 2))}))
            connection.recv()

    with Client(answering(handle)) as client:
        assert client.infer({"state": 5})["actions"].shape == (2, 2)
        assert asked == [{"state": 5}, {"state": 5}]
        assert client.metadata == {"number": 1}


def test_a_refusal_is_raised_once_and_the_next_request_is_answered(served, observe):
    with served() as server, Client(server.address) as client:
        with pytest.raises(Refused, match="the prompt is missing or empty"):
            client.infer(observe(prompt=""))
        assert client.infer(observe())["actions"].shape == (6, 2)


def test_a_late_answer_is_not_taken_for_that_of_the_next_request(answering):
    asked = []

    def handle(connection):
        connection.send(msgpack_arrays.pack({}))
        for frame in connection:
            asked.append(number := msgpack_arrays.unpack(frame)["number"])
            time.sleep(0.6 if len(asked) == 1 else 0)
            connection.send(msgpack_arrays.pack({"number": number}))

    with Client(answering(handle), timeout=0.3, patience=0.0) as client:
        with pytest.raises(ConnectionError, match="no answer"):
            client.infer({"number": 1})
        time.sleep(0.5)
        assert client.infer({"number": 2}) == {"number": 2}


def test_without_a_server_it_gives_up_when_its_patience_ends():
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        address = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"{address}: no answer for 0.2 s; the last fault: "):
            Client(address, patience=0.2)


def test_an_answer_to_a_request_that_was_interrupted_is_not_taken_for_the_next(served, observe, monkeypatch):
    with served() as server, Client(server.address) as client:
        right = client.infer(observe(100))["actions"]
        send = client._connection.send

        def interrupted(frame):
            send(frame)
            raise KeyboardInterrupt

        monkeypatch.setattr(client._connection, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.infer(observe(0))
        np.testing.assert_array_equal(client.infer(observe(100))["actions"], right)


@pytest.mark.parametrize("frame", [b"\xc1", msgpack_arrays.pack([1])])
def test_what_is_no_server_of_a_policy_is_refused_at_once(answering, frame):
    closed = threading.Event()

    def handle(connection):
        connection.send(frame)
        for _ in connection:
            pass
        closed.set()

    with pytest.raises(Refused, match="sends no map, as servers of policies do"):
        Client(answering(handle))
    assert closed.wait(20)


HANGING = """
from websockets.sync.server import serve

def handle(connection):
    connection.send(b"\\x80")
    connection.recv()

with serve(handle, "127.0.0.1", 0) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
"""


def test_a_server_that_hangs_is_given_up_in_time():
    process = subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE)
    try:
        with Client(f"ws://127.0.0.1:{int(process.stdout.readline())}", timeout=0.2, patience=0) as client:
            process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(ConnectionError, match="no answer for 0 s"):
                client.infer({"state": 1})
            assert time.monotonic() - began < 8  # websockets would wait 10 s for the other side to close
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("address", ["localhost:8000", "http://localhost", "ws://"])
def test_what_is_no_address_is_named(address):
    with pytest.raises(Refused, match="is no address; one looks like ws://"):
        Client(address)


OPENPI = """
import sys
import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.runtime.agents.policy_agent import PolicyAgent
from openpi_client.runtime.environment import Environment
from openpi_client.runtime.runtime import Runtime
from openpi_client.runtime.subscriber import Subscriber
from openpi_client.websocket_client_policy import WebsocketClientPolicy

class Room(Environment):
    def __init__(self): self.actions, self.resets = [], 0
    def reset(self): self.resets += 1; self.grey = 10
    def is_episode_complete(self): return len(self.actions) >= 9
    def get_observation(self):
        self.grey += 1
        front, wrist = (np.full((16, 16, 3), grey, np.uint8) for grey in (self.grey, 0))
        return {"observation/image": front, "observation/wrist_image": wrist,
                "observation/state": np.zeros(3), "prompt": "reach", "seed": [1, 2]}
    def apply_action(self, action): self.actions.append(action["actions"])

policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key="one")
assert policy.get_server_metadata()["action_dim"] == 2
room = Room()
Runtime(room, PolicyAgent(ActionChunkBroker(policy, 4)), [], num_episodes=1).run()
assert room.resets == 2
np.save(sys.argv[2], np.stack(room.actions))
try:
    policy.infer({"prompt": "reach"})
except RuntimeError as error:
    assert "camera 'front' is missing" in str(error), error
else:
    raise SystemExit("a wrong request was answered")
"""


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
def test_openpis_own_client_runs_an_episode_unchanged(served, compiled, observe, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    packages = ["openpi-client==0.1.2", "typing_extensions"]  # which it imports and forgets to declare
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    with served(api_keys=("one",)) as server:
        ran = subprocess.run(
            [python, "-c", OPENPI, str(server.port), tmp_path / "actions.npy"],
            capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, timeout=120,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        with Client(server.address, api_key="one") as client:
            chunks = [
                client.infer(observe(grey))["actions"][:4] for grey in (11, 15, 19)
            ]  # a look at every fourth step
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), np.concatenate(chunks)[:9])
