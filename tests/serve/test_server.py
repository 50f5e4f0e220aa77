"""What clients see of a server; the policy is a formula, so that every answer is known."""

import contextlib
import dataclasses
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pizero_jax.errors import InputError
from pizero_jax.serve import msgpack_arrays
from pizero_jax.serve.client import Client, Refused
from pizero_jax.serve.request import Names
from tests.serve.conftest import ACTION, CHUNK, STATE

SECONDS = 30  # that a test waits for what comes at once


def expected(trained, observation, num_steps=2, solver="euler"):
    """What the policy gives in process."""
    seed, look = observation["seed"]
    key = jax.random.fold_in(jax.random.key(seed), look)
    return np.asarray(
        trained.infer(
            {"images": observation["images"], "state": observation["state"]},
            observation["prompt"],
            key,
            num_steps=num_steps,
            solver=solver,
        )
    )


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def get(address, path, key=None, **headers):
    """Status and text of a page."""
    headers |= {"Authorization": key} if key else {}
    request = urllib.request.Request(address.replace("ws:", "http:") + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextlib.contextmanager
def bare(server, **options):
    """A connection that has read the metadata."""
    with connect(server.address, compression=None, proxy=None, **options) as connection:
        connection.recv(SECONDS)
        yield connection


def refusal(server, frame) -> tuple[str, int]:
    """The text of the answer to a frame, and the code of the close that follows."""
    with bare(server, max_size=None) as connection:
        connection.send(frame)
        text = connection.recv(SECONDS)
        with pytest.raises(ConnectionClosed):
            connection.recv(SECONDS)
        return text, connection.close_code


def test_an_answer_over_the_wire_is_that_of_the_policy_in_process(served, seeing, observe):
    with served() as server, Client(server.address) as client:
        for grey, look in ((0, 0), (200, 1)):
            observation = observe(grey, 0.5, seed=[3, look])
            answer = client.infer(observation)
            np.testing.assert_allclose(answer["actions"], expected(seeing, observation), rtol=1e-6)
            assert answer["actions"].shape == (CHUNK, ACTION)
            assert answer["actions"].dtype == np.float32
            assert answer["checkpoint"] == 7
            assert answer["policy_timing"]["infer_ms"] > 0
        assert answer["server_timing"]["prev_total_ms"] > 0
        for asked, used in (
            ({"num_steps": 5}, (5, "euler")),
            ({"num_steps": 5, "solver": "heun"}, (5, "heun")),
            ({"solver": "heun"}, (5, "heun")),
        ):
            answer = client.infer(observe(**asked))
            np.testing.assert_allclose(answer["actions"], expected(seeing, observe(), *used), rtol=1e-6)


def test_the_first_frame_says_what_the_policy_needs(served, seeing):
    with served() as server, Client(server.address) as client:
        assert client.metadata["cameras"] == {"front": "image", "wrist": "observation.images.wrist_image"}
        assert (client.metadata["state_dim"], client.metadata["action_dim"]) == (STATE, ACTION)
        assert client.metadata["num_steps"] == [2, 5, 5]
        assert client.metadata["solver"] == ["euler", "euler", "heun"]
        assert client.metadata["step"] == 7
        assert client.metadata["weights"] == "float32"


def test_names_of_the_data_set_and_of_openpi_are_known(served, seeing, observe):
    plain = observe(50)
    front, wrist = plain["images"].values()
    rest = {"prompt": "reach", "seed": [1, 2]}
    others = [
        {"observation/image": front, "observation/wrist_image": wrist, "observation/state": plain["state"]},
        {"observation": {"images": {"image": front}, "wrist": wrist, "state": plain["state"].tolist()}},
        {"front": front.transpose(2, 0, 1), "wrist_image": wrist, "state": plain["state"].astype(">f8")},
    ]
    with served() as server, Client(server.address) as client:
        for other in others:
            np.testing.assert_allclose(client.infer(other | rest)["actions"], expected(seeing, plain), rtol=1e-6)
        answer = client.infer(plain | {"images": {"front": front, "wrist": None}})
        np.testing.assert_allclose(answer["actions"], expected(seeing, plain) + 5, rtol=1e-6)
    names = Names(state=("joints", "gripper"), ignored=("extra",), prompt="reach")
    split = {"image": front, "wrist": wrist, "joints": plain["state"][:2], "gripper": 0.0, "extra": 1, "seed": [1, 2]}
    with served(names=names) as server, Client(server.address) as client:
        np.testing.assert_allclose(client.infer(split)["actions"], expected(seeing, plain), rtol=1e-6)


def test_without_a_seed_each_answer_has_noise_of_its_own(served, observe):
    observation = observe()
    del observation["seed"]
    with served() as server, Client(server.address) as client:
        first, second = (client.infer(observation)["actions"] for _ in range(2))
    assert not np.allclose(first, second)


def test_a_bad_frame_is_one_text_and_a_close_and_others_are_answered(served, seeing, observe, caplog):
    secret = "PRIVATE"  # part of a payload
    good = msgpack_arrays.pack(observe())
    bad = {
        good[:-5]: "truncated",
        good + b"\0": "goes on",
        b"\x91" * 10_000: "nested",
        b"": "truncated",
        msgpack_arrays.pack([1, 2]): "a map of fields",
        msgpack_arrays.pack({1: 2}): "",
        msgpack_arrays.pack(observe(prompt=secret * 100)): "tokens",
        msgpack_arrays.pack(observe(images={"front": secret, "wrist": secret})): "should be uint8",
        msgpack_arrays.pack(observe() | {"state": secret}): "state should be numbers",
        f"text {secret}": "binary frame",
    }
    with served() as server, Client(server.address) as client:
        for frame, message in bad.items():
            text, code = refusal(server, frame)
            assert message in text
            assert "Traceback" not in text
            assert code == 1011
            np.testing.assert_allclose(client.infer(observe())["actions"], expected(seeing, observe()), rtol=1e-6)
        assert f'outcome="refused"}} {len(bad)}.0' in get(server.address, "/metrics")[1]
    assert caplog.text.count("127.0.0.1:") >= len(bad)  # who
    assert caplog.text.count("refused: ") == len(bad)  # and why
    assert secret not in caplog.text


def test_a_frame_beyond_the_limit_closes_its_connection(served, seeing, observe, caplog):
    with served(message=10_000) as server, Client(server.address) as client:
        with bare(server) as connection:
            with contextlib.suppress(ConnectionClosed):
                connection.send(bytes(20_000))
            with pytest.raises(ConnectionClosed):
                connection.recv(SECONDS)
            assert connection.close_code == 1009
        client.infer(observe())
    assert "closed with 1009" in caplog.text


def test_a_fault_of_the_policy_is_told_without_its_insides(served, compiled, observe, caplog):
    class Broken(type(compiled)):
        def infer(self, rows, *rest):
            raise KeyError("insides")

    broken = Broken(**{field.name: getattr(compiled, field.name) for field in dataclasses.fields(compiled)})
    with served(policy=broken) as server:
        text, code = refusal(server, msgpack_arrays.pack(observe()))
        assert (text, code) == ("the server failed; its log says why", 1011)
        assert get(server.address, "/healthz")[0] == 200
    assert "insides" in caplog.text


def test_actions_that_are_not_finite_are_told_to_the_one_who_gets_them(served, compiled, observe):
    class Diverging(type(compiled)):
        def infer(self, rows, *rest):
            actions, *others = super().infer(rows, *rest)
            return np.where(actions[:, :1, :1] > 150, np.nan, actions), *others

    diverging = Diverging(**{field.name: getattr(compiled, field.name) for field in dataclasses.fields(compiled)})
    with served(policy=diverging) as server, Client(server.address) as client:
        assert "not finite" in refusal(server, msgpack_arrays.pack(observe(200)))[0]
        assert np.isfinite(client.infer(observe(50))["actions"]).all()


def test_requests_of_several_clients_are_answered_in_one_call_each_its_own(served, slow, seeing, observe):
    with served(policy=slow) as server, ThreadPoolExecutor(8) as pool:
        clients = [Client(server.address) for _ in range(6)]
        solvers = [{}, {}, {"num_steps": 2}, {"solver": "euler"}, {}, {"num_steps": 5}]  # the first five are the same
        observations = [observe(20 * i, seed=[i, i], **solver) for i, solver in enumerate(solvers)]
        first = pool.submit(clients[0].infer, observations[0])
        until(lambda: slow.calls == [1])
        rest = [pool.submit(client.infer, o) for client, o in zip(clients[1:], observations[1:], strict=True)]
        until(lambda: "pizero_queue 5.0" in get(server.address, "/metrics")[1])
        slow.gate.set()
        for answer, o in zip([first, *rest], observations, strict=True):
            want = expected(seeing, o, o.get("num_steps", 2))
            np.testing.assert_allclose(answer.result(SECONDS)["actions"], want, rtol=1e-6)
        assert sorted(slow.calls) == [1, 1, 4]  # the one with five solver steps cannot be among the four
        for client in clients:
            client.close()


def test_clients_that_ask_again_at_once_come_into_one_call_where_that_takes_no_longer(served, compiled, observe):
    """After a call of one the other's request is there, and the first is waited for: it was quick before."""
    calls = []

    class Slow(type(compiled)):
        def infer(self, rows, *rest):
            calls.append(len(rows))
            time.sleep(0.2)
            return super().infer(rows, *rest)

    def ask(address):
        with Client(address) as client:
            for _ in range(8):
                client.infer(observe())

    slow = Slow(**{field.name: getattr(compiled, field.name) for field in dataclasses.fields(compiled)})
    with served(policy=slow) as server, ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, [server.address] * 2))
    assert sum(calls) == 16
    assert calls.count(2) >= 4
    assert 1 in calls  # who came first did not wait: nothing was known of the other


def test_health_is_told_while_the_policy_computes(served, slow, observe):
    with served(policy=slow) as server, ThreadPoolExecutor(1) as pool, Client(server.address) as client:
        answer = pool.submit(client.infer, observe())
        until(lambda: slow.calls)
        assert get(server.address, "/healthz") == (200, "OK\n")
        assert not answer.done()
        slow.gate.set()
        answer.result(SECONDS)


def test_only_small_requests_that_come_alone_are_read_in_the_event_loop(served, slow, observe, monkeypatch):
    from pizero_jax.serve.request import Reader

    read, threads = Reader.read, []

    def noting(reader, message):
        threads.append(threading.current_thread().name.split("_")[0])
        return read(reader, message)

    monkeypatch.setattr(Reader, "read", noting)
    large = observe() | {"images": dict.fromkeys(("front", "wrist"), np.zeros((600, 600, 3), np.uint8))}
    with served(policy=slow) as server, ThreadPoolExecutor(2) as pool, Client(server.address) as other:
        slow.gate.set()
        with Client(server.address) as client:
            for observation in (observe(), large):
                client.infer(observation)
        slow.gate.clear()
        two = []
        for client in (other, Client(server.address)):
            two.append(pool.submit(client.infer, observe()))
            until(lambda: len(threads) == 2 + len(two))
        slow.gate.set()
        assert [len(answer.result(SECONDS)["actions"]) for answer in two] == [CHUNK, CHUNK]
        client.close()
    loop = threads[0]
    assert threads == [loop, "prepare", loop, "prepare"]
    assert loop != "prepare"


def test_a_full_queue_is_told_and_the_client_asks_again(served, slow, observe):
    with served(policy=slow, queue=1) as server, ThreadPoolExecutor(3) as pool:
        clients = [Client(server.address) for _ in range(3)]
        answers = [pool.submit(clients[0].infer, observe())]
        until(lambda: slow.calls == [1])
        answers.append(pool.submit(clients[1].infer, observe()))
        until(lambda: "pizero_queue 1.0" in get(server.address, "/metrics")[1])
        text, code = refusal(server, msgpack_arrays.pack(observe()))
        assert text.startswith("busy: ")
        assert code == 1013
        answers.append(pool.submit(clients[2].infer, observe()))
        until(lambda: 'outcome="busy"} 2.0' in get(server.address, "/metrics")[1])
        slow.gate.set()
        for answer in answers:
            assert answer.result(SECONDS)["actions"].shape == (CHUNK, ACTION)
        for client in clients:
            client.close()


def test_a_request_that_takes_too_long_is_given_up(served, slow, observe):
    with served(policy=slow, request_timeout=0.3) as server:
        assert refusal(server, msgpack_arrays.pack(observe())) == ("no answer within 0.3 s", 1013)
        slow.gate.set()
        with Client(server.address) as client:
            client.infer(observe())


def test_a_client_that_goes_away_costs_nobody_anything(served, slow, observe):
    with served(policy=slow) as server, Client(server.address) as client:
        for _ in range(3):
            with bare(server, close_timeout=0.1) as connection:
                connection.send(msgpack_arrays.pack(observe()))
        slow.gate.set()
        assert client.infer(observe())["actions"].shape == (CHUNK, ACTION)
        until(lambda: "pizero_connections 1.0" in get(server.address, "/metrics")[1])


def test_a_client_that_never_reads_is_closed(served, compiled, observe, caplog):
    @dataclasses.dataclass(frozen=True)
    class Wordy(type(compiled)):
        def infer(self, rows, *rest):
            actions, *others = super().infer(rows, *rest)
            return np.repeat(actions, 10_000, axis=1), *others

    wordy = Wordy(**{field.name: getattr(compiled, field.name) for field in dataclasses.fields(compiled)})
    with served(policy=wordy, send_timeout=0.3) as server, Client(server.address) as client:
        deaf = socket.create_connection(("127.0.0.1", server.port))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        frame = msgpack_arrays.pack(observe())
        deaf.settimeout(SECONDS)
        with contextlib.suppress(OSError):
            for _ in range(1_000):
                deaf.sendall(b"\x82\xfe" + len(frame).to_bytes(2, "big") + bytes(4) + frame)
        until(lambda: "does not read" in caplog.text)
        assert client.infer(observe())["actions"].shape == (CHUNK * 10_000, ACTION)
        deaf.close()


def test_idle_connections_are_closed_and_too_many_are_turned_away(served, observe):
    with served(connections=3, idle_timeout=1.0) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(bare(server))
            with pytest.raises(ConnectionError, match="503"):
                Client(server.address, patience=0.0)
            assert get(server.address, "/healthz")[0] == 200
        with Client(server.address) as client:
            until(lambda: "pizero_connections 0.0" in get(server.address, "/metrics")[1])
            assert 'reason="idle"} ' in get(server.address, "/metrics")[1]
            client.infer(observe())  # it connects again


def test_without_the_right_key_nothing_is_told_but_health(served, observe, caplog):
    with served(api_keys=("one", "two")) as server:
        for key in ("one", "two"):
            with Client(server.address, api_key=key) as client:
                client.infer(observe())
        for key in (None, "onetwo", "on", "", "öne"):
            with pytest.raises(Refused, match="401"):
                Client(server.address, api_key=key and key.encode().decode("latin-1"))
        assert get(server.address, "/healthz") == (200, "OK\n")
        for path in ("/", "/metrics", "/live.json"):
            assert get(server.address, path)[0] == 401
            assert get(server.address, path, "Bearer one")[0] == 401
            assert get(server.address, path, "Basic b25l")[0] == 401  # "one" as the name, not as the password
            assert get(server.address, path, "Basic eDpvbmU=")[0] == 200  # x:one
        assert 'turned_away_total{reason="key"}' in get(server.address, "/metrics", "Api-Key two")[1]
    assert "wrong or no API key" in caplog.text
    assert "onetwo" not in caplog.text


def test_pages_of_others_in_a_browser_may_not_ask(served):
    with served() as server, pytest.raises(Exception, match="403"):
        connect(server.address, origin="http://elsewhere", proxy=None).__enter__()


def test_accepted_requests_are_answered_before_the_server_goes_away(served, slow, observe):
    with served(policy=slow) as server, ThreadPoolExecutor(2) as pool:
        one, other = Client(server.address), Client(server.address, patience=0.0)
        answer = pool.submit(one.infer, observe())
        until(lambda: slow.calls)
        server.stop_soon()
        until(lambda: get(server.address, "/healthz")[0] == 503)
        with pytest.raises(ConnectionError, match="going away"):
            other.infer(observe())
        slow.gate.set()
        assert answer.result(SECONDS)["actions"].shape == (CHUNK, ACTION)
        one.close()


def test_a_newer_checkpoint_acts_without_dropping_a_connection(served, compiled, seeing, observe):
    newer = dataclasses.replace(seeing, params={"weight": seeing.params["weight"] + 1000}, step=8)
    with served() as server, bare(server) as connection:

        def ask():
            connection.send(msgpack_arrays.pack(observe()))
            return msgpack_arrays.unpack(connection.recv(SECONDS))

        before = ask()
        server.replace(compiled.replaced(newer))
        after = ask()
        assert (before["checkpoint"], after["checkpoint"]) == (7, 8)
        np.testing.assert_allclose(after["actions"], before["actions"] + 1000, rtol=1e-6)
        assert "pizero_checkpoint_step 8.0" in get(server.address, "/metrics")[1]


def test_a_reload_in_the_middle_changes_no_answer_that_was_asked_for_before(served, slow, seeing, observe):
    newer = dataclasses.replace(seeing, params={"weight": seeing.params["weight"] + 1000}, step=8)
    with served(policy=slow) as server, ThreadPoolExecutor(1) as pool, Client(server.address) as client:
        answer = pool.submit(client.infer, observe())
        until(lambda: slow.calls)
        server.replace(slow.replaced(newer))
        slow.gate.set()
        np.testing.assert_allclose(answer.result(SECONDS)["actions"], expected(seeing, observe()), rtol=1e-6)


def test_with_tls_the_wire_is_encrypted(served, observe, tmp_path):
    import ssl

    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate, key)
    with served(tls=ours) as server:
        address = f"wss://localhost:{server.port}"
        with Client(address, tls=ssl.create_default_context(cafile=str(certificate))) as client:
            client.infer(observe())
        with pytest.raises(Refused, match="self-signed"):
            Client(address)


def test_the_address_that_is_taken_is_named(served):
    with served() as server, pytest.raises(InputError, match=f"--port={server.port}"), served(port=server.port):
        pass


def test_what_the_page_shows_is_what_was_asked_and_answered(served, seeing, observe):
    with served() as server, Client(server.address) as client:
        client.infer(observe(10))
        client.infer(observe(20, executed=np.arange(4.0).reshape(2, 2)))
        live = json.loads(get(server.address, "/live.json")[1])
        (shown,) = live["clients"]
        assert shown["prompt"] == "reach"
        assert set(shown["pictures"]) == {"front", "wrist"}
        assert shown["executed"] == [[0, 1], [2, 3]]
        assert [start for start, _ in shown["chunks"]] == [0, 2]
        np.testing.assert_allclose(shown["chunks"][1][1], expected(seeing, observe(20)), rtol=1e-4)
        assert shown["looks"] == 2
        assert len(live["percentiles"]["total"]) == 3


@pytest.mark.parametrize("count", [32])
def test_many_clients_at_once_get_their_own_answers(served, seeing, observe, count):
    def ask(i):
        with Client(server.address, timeout=SECONDS) as client:
            return client.infer(observe(i, seed=[i, 0]))["actions"]

    with served(connections=count + 1) as server, ThreadPoolExecutor(16) as pool:
        barrier = list(pool.map(ask, range(count)))
    for i, actions in enumerate(barrier):
        np.testing.assert_allclose(actions, expected(seeing, observe(i, seed=[i, 0])), rtol=1e-6)
    assert threading.active_count() < 60


def test_what_nobody_waits_for_any_more_is_not_computed(served, slow, observe):
    with served(policy=slow) as server:
        for _ in range(5):
            with bare(server, close_timeout=0.1) as connection:
                connection.send(msgpack_arrays.pack(observe()))
        until(lambda: "pizero_queue 0.0" in get(server.address, "/metrics")[1])
        slow.gate.set()
        until(lambda: 'outcome="gone"} 5.0' in get(server.address, "/metrics")[1])
        assert slow.calls == [1]  # it had begun
        until(lambda: not any(client["open"] for client in json.loads(get(server.address, "/live.json")[1])["clients"]))


def test_of_two_keys_in_one_request_none_counts(served):
    with served(api_keys=("one",)) as server, socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + 2 * b"Authorization: Api-Key one\r\n" + b"\r\n")
        assert plain.recv(100).startswith(b"HTTP/1.1 401")
