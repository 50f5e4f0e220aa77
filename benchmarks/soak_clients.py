"""Clients that a server has to bear: robots that check every answer, and those that send what no robot would."""

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from pizero_jax.serve import msgpack_arrays
from pizero_jax.serve.client import Client

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
BINARY = 2  # opcode, RFC 6455
REASONS = (b"refused", b"busy", b"timeout", b"failed")  # of the server's closes
WRONG = (None, True, -1, 2**63, float("nan"), "", "x" * 5_000, b"\xff" * 9, [], [[]], {}, {"a": {}}, [None] * 99,
         np.zeros(0, np.float32), np.zeros((1, 1, 1)), np.full(3, np.inf), np.zeros((16, 16, 4), np.uint8))  # fmt: skip

OTHERS = ("num_steps", "solver", "executed", "recorded", "ahead", "delay", "other")


class Robot(threading.Thread):
    """Asks at `hz` until `stop`, checks every answer, and goes away without a word now and then.

    Args:
      expected: step of a checkpoint -> the actions of each observation.
      leaving: how many of its requests it does not wait for.
    """

    def __init__(
        self,
        address: str,
        observations: Sequence[Mapping[str, Any]],
        expected: Mapping[int, Sequence[np.ndarray]],
        *,
        hz: float = 30.0,
        leaving: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(daemon=True)
        self._address, self._observations, self._expected = address, observations, expected
        self._hz, self._leaving, self._random = hz, leaving, random.Random(seed)
        self._stop_soon = threading.Event()
        self.times: list[float] = []  # seconds of each answer
        self.answered: Counter[int] = Counter()  # by checkpoint
        self.left, self.faults = 0, []

    def run(self) -> None:
        client = None
        while not self._stop_soon.wait(self._random.uniform(0.5, 1.5) / self._hz):
            try:
                client = client or Client(self._address, patience=0.0, timeout=30.0)
                if self._random.random() < self._leaving:
                    client.close()
                    self._leave()
                    client = None
                    continue
                i = self._random.randrange(len(self._observations))
                start = time.perf_counter()
                answer = client.infer(self._observations[i])
                self.times.append(time.perf_counter() - start)
                self.answered[answer["checkpoint"]] += 1
                np.testing.assert_allclose(answer["actions"], self._expected[answer["checkpoint"]][i], atol=1e-4)
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {str(error)[:200]}")
                client = None
        if client:
            client.close()

    def stop(self) -> None:
        self._stop_soon.set()
        self.join(60)

    def _leave(self) -> None:
        """Asks, and is gone before the answer."""
        frame = msgpack_arrays.pack(dict(self._random.choice(self._observations)))
        with opened(self._address) as gone:
            gone.sendall(masked(BINARY, frame))
            if self._random.random() < 0.5:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not closed
        self.left += 1


def opened(address: str, receive: int | None = None) -> socket.socket:
    """A websocket as a bare socket, whose handshake is not read.

    Args:
      receive: bytes of its buffer for what comes.
    """
    host, port = address.removeprefix("ws://").split(":")
    made = socket.socket()
    if receive:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    made.settimeout(60)
    made.connect((host, int(port)))
    made.sendall(UPGRADE)
    return made


def masked(opcode: int, payload: bytes) -> bytes:
    """A whole frame of a client, by a mask of zeros."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 2**16 else b"\xff" + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def told(address: str, frame: bytes) -> str:
    """What comes of a frame: "answered", "refused", "closed" by the protocol, or "waited for" until we close."""
    with opened(address) as one:
        found, outcome = b"", "closed"
        try:
            one.sendall(frame)
            one.settimeout(1)
            while b"policy_timing" not in found:
                if found.endswith(REASONS):
                    return "refused"
                try:
                    data = one.recv(65536)
                except TimeoutError:  # for the rest of a frame
                    outcome = "waited for"
                    one.shutdown(socket.SHUT_WR)
                    one.settimeout(60)
                    continue
                if not data:
                    return outcome
                found += data
            return "answered"
        except (ConnectionResetError, BrokenPipeError):  # it closes before it has read all
            return "closed"


def malformed(observation: Mapping[str, Any], rng: random.Random) -> bytes:
    """A frame of a client that is, nearly always, no request: a valid one, changed."""
    if rng.random() < 0.01:  # what is no frame of a client: opcodes that are none, no mask, lengths that never come
        return bytes([rng.randrange(256), rng.randrange(256)]) + os.urandom(rng.randrange(20))
    return masked(rng.choice([BINARY] * 19 + [1]), payload(observation, rng))


def payload(observation: Mapping[str, Any], rng: random.Random) -> bytes:
    """msgpack of a request, changed: in its values, then perhaps in its bytes."""
    message = dict(observation)
    how = rng.randrange(8)
    if how < 3:
        message[rng.choice([*message, *OTHERS])] = rng.choice(WRONG)
    elif how == 3:
        del message[rng.choice(list(message))]
    elif how == 4:
        depth, inner = rng.randrange(1, 400), b"\xc0"
        return (rng.choice([b"\x91", b"\x81\xa1x"]) * depth) + inner
    frame = bytearray(msgpack_arrays.pack(message))
    if how == 5:  # lengths and types stand at the beginning of each value: hit those
        heads = [at for at in range(len(frame)) if frame[at] >= 0x80 and frame[at] < 0xE0] or [0]
        for _ in range(rng.randrange(1, 6)):
            frame[rng.choice(heads)] = rng.randrange(256)
    elif how == 6:
        return bytes(frame[: rng.randrange(len(frame))])
    elif how == 7:
        at, size = rng.randrange(len(frame)), rng.randrange(1, 40)
        frame[at : at + rng.randrange(size)] = rng.choice(
            [os.urandom(size), bytes(frame[:size]), msgpack.packb(msgpack.ExtType(3, b"x" * size)),
             rng.choice([b"\xdd", b"\xdf", b"\xc6"]) + b"\xff" * 4]
        )  # fmt: skip
    return bytes(frame)
