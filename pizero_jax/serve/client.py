"""A policy on another machine, as a function of what the robot sees.

    policy = Client("ws://robot-server:8000")
    actions = policy.infer({"images": {"image": picture}, "state": state, "prompt": "open the drawer"})["actions"]

Needs numpy, msgpack and websockets, no JAX. It speaks openpi's wire format, so openpi's own server answers, too.
"""

import contextlib
import logging
import random
import ssl
import time
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from pizero_jax.errors import InputError
from pizero_jax.serve import msgpack_arrays

_TOO_LARGE, _BUSY = 1009, 1013  # close codes, RFC 6455; the second says: try again later
_FIRST, _LONGEST = 0.1, 5.0  # seconds between attempts, doubling
_RETRIED = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses of servers that are busy or about to start


class Refused(RuntimeError):
    """The server says what is wrong with the request, or that it failed; the same would be said again."""


class Client:
    """Connects at once, and again whenever the connection is lost; a request that was under way is then repeated.

    For one thread at a time. What keeps it from an answer is logged, once for each outage.

    Args:
      address: "ws://host:port", or "wss://.." for TLS.
      api_key: one of the server's, where it wants one.
      timeout: seconds for one answer.
      patience: seconds for which a server that is away or busy is asked again, ever more seldom.
      tls: for "wss://" with a certificate that the system does not know.

    Raises:
      Refused: wrong address, wrong key, or a server whose first frame is no map; a request that is too large.
      ConnectionError: nobody answered for `patience` seconds.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        patience: float = 60.0,
        tls: ssl.SSLContext | None = None,
    ):
        self._address, self._timeout, self._patience, self._tls = address, timeout, patience, tls
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._open = contextlib.ExitStack()
        self._connection: ClientConnection | None = None
        self.metadata: dict[str, Any] = {}
        self._try(self._connected)

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer; "actions" is [C, a], read-only. `Refused` or ConnectionError as above."""
        frame = msgpack_arrays.pack(dict(observation))
        return self._try(lambda: self._asked(frame))

    def reset(self) -> None:
        """Nothing: the server keeps no state of an episode."""

    def close(self) -> None:
        self._connection = None
        self._open.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _try(self, attempt):
        """What `attempt` gives, repeated while the server is away or busy."""
        until, pause = time.monotonic() + self._patience, _FIRST
        while True:
            try:
                return attempt()
            except (OSError, ConnectionClosed, InvalidHandshake, _Later) as error:
                self.close()
                if isinstance(error, InvalidStatus) and error.response.status_code not in _RETRIED:
                    text = (error.response.body or b"").decode(errors="replace").strip()
                    raise Refused(f"{self._address}: {error.response.status_code} {text}") from error
                if isinstance(error, ConnectionClosed) and error.rcvd and error.rcvd.code == _TOO_LARGE:
                    raise Refused(f"the request is too large for the server: {error.rcvd.reason}") from error
                rest = until - time.monotonic()
                if rest <= 0:
                    raise ConnectionError(
                        f"{self._address}: no answer for {self._patience:g} s; the last fault: {error}"
                    ) from error
                if pause == _FIRST:
                    logging.warning("%s: %s; asked again for %g s", self._address, error, self._patience)
                # Many robots that lost the same server do not come back at the same moment.
                time.sleep(min(rest, pause * random.uniform(0.5, 1)))
                pause = min(2 * pause, _LONGEST)

    def _connected(self) -> ClientConnection:
        if self._connection is None:
            options = {"ssl": self._tls} if self._tls else {}
            try:
                made = connect(
                    self._address, compression=None, max_size=None, additional_headers=self._headers, proxy=None,
                    open_timeout=self._timeout, close_timeout=min(self._timeout, 1.0), **options,
                )  # fmt: skip
                connection = self._open.enter_context(made)
            except InvalidURI as error:
                raise Refused(f"{self._address} is no address; one looks like ws://localhost:8000") from error
            except ssl.SSLCertVerificationError as error:
                raise Refused(f"{self._address}: {error.verify_message}") from error
            self.metadata = self._received(connection)
            self._connection = connection
        return self._connection

    def _asked(self, request: bytes) -> dict[str, Any]:
        return self._received(self._connected(), request)

    def _received(self, connection: ClientConnection, request: bytes | None = None) -> dict[str, Any]:
        """The next map; a text is an error, and the close code that follows says of which kind."""
        try:
            if request is not None:
                connection.send(request)
            frame = connection.recv(self._timeout)
        except BaseException:
            self.close()  # an answer that comes late would be taken for that of the next request
            raise
        if isinstance(frame, str):
            code = _close_code(connection)
            self.close()
            raise _Later(frame) if code == _BUSY else Refused(frame)
        try:
            found = msgpack_arrays.unpack(frame)
        except InputError as error:
            found = error
        if not isinstance(found, dict):
            self.close()
            raise Refused(f"{self._address} sends no map, as servers of policies do, but {str(found)[:100]}")
        return found


class _Later(Exception):
    """The server is busy."""


def _close_code(connection: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed, TimeoutError):
        connection.recv(1.0)
    return connection.close_code
