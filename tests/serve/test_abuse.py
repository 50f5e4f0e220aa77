"""Clients that mean no good, a few; `benchmarks/soak.py` sends 100,000 frames and stays for minutes."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks.soak_clients import BINARY, Robot, malformed, masked, opened, payload, told
from pizero_jax.errors import InputError
from pizero_jax.serve import msgpack_arrays
from pizero_jax.serve.client import Client
from pizero_jax.serve.request import Names, Reader, Request
from tests.serve.test_server import expected, get, until


@pytest.fixture
def robot(seeing, observe):
    """A function of an address: a robot that asks beside and checks every answer."""
    observations = [observe(20 * i, seed=[i, 0]) for i in range(4)]
    right = {seeing.step: [expected(seeing, o) for o in observations]}

    def start(address):
        made = Robot(address, observations, right, hz=100.0)
        made.start()
        return made

    return start


def test_what_is_malformed_is_a_request_or_an_input_error_whatever_it_is(compiled, observe):
    reader, rng, outcomes = Reader(compiled.trained, compiled.solvers, Names()), random.Random(0), set()
    for _ in range(3_000):
        try:
            found = reader.read(msgpack_arrays.unpack(payload(observe(), rng)))
        except InputError as error:
            outcomes.add(str(error))
            continue
        assert isinstance(found, Request)
        assert np.isfinite(found.state).all()
    assert len(outcomes) > 20  # the frames are wrong in many ways
    assert max(map(len, outcomes)) < 300


def test_malformed_frames_trouble_nobody_else(served, robot, observe, caplog):
    rng = random.Random(0)
    with served() as server:
        beside = robot(server.address)
        outcomes = {told(server.address, malformed(observe(), rng)) for _ in range(150)}
        assert outcomes >= {"answered", "refused"}
        until(lambda: len(beside.times) > 20)
        beside.stop()
        assert beside.faults == []
        until(lambda: "pizero_connections 0.0" in get(server.address, "/metrics")[1])
        assert 'outcome="failed"} 0.0' in get(server.address, "/metrics")[1]
    assert "Traceback" not in caplog.text


def test_a_thousand_connections_that_say_nothing_delay_nobody_and_are_closed(served, robot):
    with served(connections=1_100, idle_timeout=3.0) as server, ThreadPoolExecutor(4) as pool:
        beside = robot(server.address)
        waiting = list(pool.map(lambda _: opened(server.address), range(1_000)))
        for connection in waiting:
            while connection.recv(65536):
                pass
            connection.close()
        beside.stop()
        assert beside.faults == []
        assert len(beside.times) > 50
        assert 'reason="busy"} ' not in get(server.address, "/metrics")[1]


def test_robots_that_leave_before_their_answer_cost_the_others_none(served, seeing, observe):
    observations = [observe(20 * i, seed=[i, 0]) for i in range(4)]
    right = {seeing.step: [expected(seeing, o) for o in observations]}
    with served() as server:
        robots = [Robot(server.address, observations, right, hz=100.0, leaving=0.3, seed=i) for i in range(4)]
        for robot in robots:
            robot.start()
        until(lambda: min(robot.left for robot in robots) > 5)
        for robot in robots:
            robot.stop()
        assert [fault for robot in robots for fault in robot.faults] == []
        until(lambda: "pizero_queue 0.0" in get(server.address, "/metrics")[1])
        with Client(server.address) as client:
            client.infer(observe())


def test_half_a_frame_is_waited_for_no_longer_than_for_any(served, observe):
    frame = masked(BINARY, msgpack_arrays.pack(observe()))
    with served(idle_timeout=0.5) as server:
        start = time.monotonic()
        with opened(server.address) as half:
            half.sendall(frame[: len(frame) // 2])
            while half.recv(65536):
                pass
        assert time.monotonic() - start < 30
