"""What the last requests of a few clients looked like, for the server's page."""

import base64
import json
import threading
import time
from collections import deque
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import Float

from pizero_jax.serve.request import Request

CLIENTS = 4  # that are shown: those that asked last
EXECUTED = 120  # actions that stay
LOOKS = 30  # chunks that stay


class Live:
    """Keeps references only; pictures become JPEG when somebody looks."""

    def __init__(self):
        self._clients: dict[str, _Client] = {}
        self._lock = threading.Lock()

    def see(self, peer: str, request: Request, actions: Float[np.ndarray, "C a"]) -> None:
        with self._lock:
            client = self._clients.pop(peer, None) or _Client()
            self._clients[peer] = client  # the last one in the order of the dictionary
            if len(self._clients) > CLIENTS:
                del self._clients[next(iter(self._clients))]
            client.see(request, actions)

    def forget(self, peer: str) -> None:
        """The connection is closed; what it showed stays until others take its place."""
        with self._lock:
            if peer in self._clients:
                self._clients[peer].open = False

    def text(self, described: dict[str, Any]) -> str:
        """JSON of `described` and of the clients, the latest first."""
        with self._lock:
            clients = [(peer, client.copy()) for peer, client in reversed(self._clients.items())]
        return json.dumps(described | {"clients": [{"peer": peer} | client.shown() for peer, client in clients]})


class _Client:
    def __init__(self):
        self.open, self.looks, self.request, self.at = True, 0, None, 0.0
        self.executed: deque[list[float]] = deque(maxlen=EXECUTED)
        self.chunks: deque[tuple[int, list[list[float]]]] = deque(maxlen=LOOKS)  # with the step that they begin at
        self.steps = 0  # actions that the client said it executed

    def see(self, request: Request, actions: Float[np.ndarray, "C a"]) -> None:
        executed = [] if request.executed is None else request.executed.tolist()
        self.executed.extend(executed)
        self.steps += len(executed)
        self.chunks.append((self.steps, np.round(actions, 5).tolist()))
        self.request, self.looks, self.at, self.open = request, self.looks + 1, time.time(), True

    def copy(self) -> "_Client":
        copy = _Client()
        copy.__dict__ |= self.__dict__ | {"executed": list(self.executed), "chunks": list(self.chunks)}
        return copy

    def shown(self) -> dict[str, Any]:
        row = self.request.row
        pictures = {camera: image for camera, image in row.images.items() if row.image_masks[camera]}
        return {
            "open": self.open,
            "looks": self.looks,
            "age": time.time() - self.at,
            "prompt": self.request.prompt,
            "state": self.request.state.tolist(),
            "pictures": {camera: _jpeg(image) for camera, image in pictures.items()},
            "steps": self.steps,
            "executed": self.executed,  # the last is step `steps` - 1
            "chunks": self.chunks,
            "recorded": [] if self.request.recorded is None else self.request.recorded.tolist(),  # as the last chunk
        }


def _jpeg(image: np.ndarray) -> str:
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
