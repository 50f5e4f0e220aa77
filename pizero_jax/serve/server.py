"""A policy behind a websocket, in openpi's wire format: its clients need another address and nothing else.

The first frame is metadata; then each request is a map of fields and each answer a map with "actions". An error is a
text, after which the connection is closed. The event loop moves frames, and prepares the pictures of a lone client;
those of several are prepared in a few threads, and one thread computes. docs/serving.md has the format, the limits and
what is measured.

Source of the wire format: openpi-client 0.1.2, its WebsocketClientPolicy.
"""

import asyncio
import base64
import collections
import dataclasses
import hmac
import http
import logging as plain_logging
import secrets
import ssl
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import logging
from websockets.asyncio.server import Request as HttpRequest
from websockets.asyncio.server import Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from pizero_jax.errors import InputError
from pizero_jax.serve import live_page, msgpack_arrays
from pizero_jax.serve.batching import Batcher, Busy, Gone, Pace
from pizero_jax.serve.compiled import CompiledPolicy, Solver
from pizero_jax.serve.live import Live
from pizero_jax.serve.measures import Measures
from pizero_jax.serve.quantize import held_as
from pizero_jax.serve.request import SEEDS, Names, Reader, Request
from pizero_jax.serve.schedule import Times

AT_ONCE = 2**20  # bytes of a request that is read in 1 ms, and in 20 at worst
GOING_AWAY, INTERNAL, TRY_AGAIN = 1001, 1011, 1013  # close codes, RFC 6455, section 7.4.1


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits, all of them finite. Times in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8000
    queue: int = 64  # requests that wait; more are told "busy"
    connections: int = 256
    message: int = 16 * 2**20
    request_timeout: float = 10.0  # from its arrival until its answer is ready
    send_timeout: float = 10.0  # until a client has taken an answer
    idle_timeout: float = 600.0  # between requests
    drain_timeout: float = 30.0  # after SIGTERM
    threads: int = 2  # that prepare pictures
    api_keys: tuple[str, ...] = dataclasses.field(default=(), repr=False)  # none: whoever can connect may ask
    tls: ssl.SSLContext | None = None
    names: Names = Names()


@dataclasses.dataclass(frozen=True, eq=False)
class Engine:
    """A policy with its reader; requests that were read for one are answered by it, whatever is loaded meanwhile."""

    policy: CompiledPolicy
    reader: Reader
    times: dict[Hashable, Times] = dataclasses.field(default_factory=lambda: collections.defaultdict(Times))


class PolicyServer:
    """Serves a compiled policy until it is told to stop; `replace` changes the policy while it runs."""

    def __init__(self, policy: CompiledPolicy, settings: Settings):
        self.settings = settings
        self._engine = self._made(policy)
        self._seed, self._looks = secrets.randbelow(SEEDS), 0
        self._connections: set[ServerConnection] = set()
        self._in_flight, self._idle = 0, asyncio.Event()
        self._idle.set()
        self._draining = False
        self._stopped = asyncio.Event()
        self._preparing = ThreadPoolExecutor(settings.threads, "prepare")
        self._live = Live()
        self._batcher: Batcher
        self._server: Any = None
        self.measures = Measures(
            lambda: len(self._connections), lambda: len(self._batcher), lambda: self.policy.trained.step
        )

    @property
    def port(self) -> int:
        """The one that is listened on, if 0 was asked for."""
        return self._server.sockets[0].getsockname()[1]

    @property
    def policy(self) -> CompiledPolicy:
        """The one that acts now."""
        return self._engine.policy

    def replace(self, policy: CompiledPolicy) -> None:
        """Requests that arrive from now on are answered by `policy`; no connection notices. From any thread."""
        self._engine = self._made(policy)
        self.measures.reloaded()

    def _made(self, policy: CompiledPolicy) -> Engine:
        return Engine(policy, Reader(policy.trained, policy.solvers, self.settings.names, policy.real_time))

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Listens until `stop`; InputError if the address is taken."""
        s = self.settings
        quiet = plain_logging.getLogger("pizero_jax.websockets")
        quiet.setLevel(plain_logging.CRITICAL)  # it logs a traceback for every stranger; we log one line
        self._batcher = Batcher(self._work, sizes=self._engine.policy.sizes, limit=s.queue,
                                times=lambda kind: kind[0].times[kind[1:]])  # fmt: skip
        try:
            self._server = await serve(
                self._handle, s.host, s.port, ssl=s.tls, process_request=self._http, compression=None,
                max_size=s.message, max_queue=1, close_timeout=5, logger=quiet,
            )  # fmt: skip
        except OSError as error:
            self._batcher.close()
            raise InputError(f"--host={s.host} --port={s.port} cannot be listened on: {error.strerror}") from error
        started()
        await self._stopped.wait()
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), s.drain_timeout)
        except TimeoutError:
            logging.warning("%d requests were not answered within %g s", self._in_flight, s.drain_timeout)
        self._server.close()
        await self._server.wait_closed()
        self._batcher.close()
        self._preparing.shutdown(wait=False)

    def stop(self) -> None:
        """Takes no more requests, answers those that it has, and ends `run`; for signal handlers."""
        self._stopped.set()

    # Connections

    async def _handle(self, connection: ServerConnection) -> None:
        host, port = connection.remote_address[:2]
        peer, pace, before = f"{host}:{port}", Pace(), 0.0
        self._connections.add(connection)
        open_ = asyncio.create_task(connection.wait_closed())
        open_.add_done_callback(lambda _: self._batcher.leave(pace))
        try:
            await self._send(connection, msgpack_arrays.pack(metadata(self._engine.policy)))
            while before is not None:
                async with asyncio.timeout(self.settings.idle_timeout):
                    frame = await connection.recv()
                before = await self._converse(connection, peer, pace, frame, before)
                del frame  # not kept while waiting for the next one
        except TimeoutError:
            self.measures.turn_away("idle")
            logging.warning("%s: closed, as it was idle or does not read", peer)
            await connection.close(GOING_AWAY, "idle")
        except ConnectionClosed as closed:
            if closed.sent and not closed.rcvd_then_sent and closed.sent.code not in (1000, GOING_AWAY):
                self.measures.turn_away("protocol")
                logging.warning("%s: closed with %d %s", peer, closed.sent.code, ascii(closed.sent.reason[:100]))
        finally:
            open_.cancel()
            self._connections.remove(connection)
            asyncio.get_running_loop().call_soon(self._live.forget, peer)  # after the note of its last request

    async def _converse(
        self, connection: ServerConnection, peer: str, pace: Pace, frame: Any, before: float
    ) -> float | None:
        """Answers one frame and returns how long that took, for the next answer; None if it ended the connection."""
        start = time.perf_counter()
        self._in_flight += 1
        self._idle.clear()
        try:
            try:
                if self._draining:
                    raise Busy("busy: the server is going away")
                async with asyncio.timeout(self.settings.request_timeout):
                    lone = self._in_flight == 1 and len(frame) <= AT_ONCE
                    answer = await self.answer(peer, pace, lambda engine: self._read(engine, frame), lone)
            except Gone:
                self.measures.count("gone")
                return None
            except Exception as error:
                await self._refuse(connection, peer, error)
                return None
            if before:
                answer["server_timing"]["prev_total_ms"] = 1e3 * before
            try:
                await self._send(connection, msgpack_arrays.pack(answer))
            except (ConnectionClosed, TimeoutError):
                self.measures.count("gone")
                raise
            self.measures.count("answered")
            return time.perf_counter() - start
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _refuse(self, connection: ServerConnection, peer: str, error: Exception) -> None:
        """Says what was wrong, to the client and to the log, and closes."""
        code, text = INTERNAL, str(error)
        if isinstance(error, InputError):
            outcome = "refused"
        elif isinstance(error, Busy):
            outcome, code = "busy", TRY_AGAIN
        elif isinstance(error, TimeoutError):
            outcome, code, text = "timeout", TRY_AGAIN, f"no answer within {self.settings.request_timeout:g} s"
        else:
            outcome, text = "failed", "the server failed; its log says why"
            logging.error("%s: %s", peer, type(error).__name__, exc_info=error)
        self.measures.count(outcome)
        logging.warning("%s: %s: %s", peer, outcome, text)
        await self._send(connection, text)
        await connection.close(code, outcome)

    async def _send(self, connection: ServerConnection, data: bytes | str) -> None:
        """TimeoutError, and the connection is gone, if the client does not take it."""
        try:
            async with asyncio.timeout(self.settings.send_timeout):
                await connection.send(data)
        except TimeoutError:
            connection.transport.abort()
            raise

    # Answers

    async def answer(
        self, peer: str, pace: Pace, read: Callable[[Engine], Request], at_once: bool = False
    ) -> dict[str, Any]:
        """The answer to what `read` makes of the policy that is there now; whatever is raised on the way.

        Args:
          at_once: read it in the event loop: for a small request with nothing beside it, that takes as long as to wake
            a thread and to be woken by it.
        """
        start, engine = time.perf_counter(), self._engine
        loop = asyncio.get_running_loop()
        request = read(engine) if at_once else await loop.run_in_executor(self._preparing, read, engine)
        was_read = time.perf_counter()
        kind = engine, request.solver, request.ahead is not None
        actions, well_formed, times = await self._batcher.submit(kind, request, pace)
        end = time.perf_counter()
        stages = {"read": was_read - start, **times, "total": end - start}
        stages["queue"] = end - was_read - sum(times.values())
        loop.call_soon(self._note, peer, request, actions, stages)  # once the answer is on its way
        milliseconds = {f"{stage}_ms": 1e3 * seconds for stage, seconds in stages.items()}
        return {
            "actions": actions,
            "well_formed": bool(well_formed),
            "checkpoint": engine.policy.trained.step,
            "policy_timing": {"infer_ms": milliseconds["act_ms"] + milliseconds["finish_ms"]},
            "server_timing": {"infer_ms": milliseconds["total_ms"], **milliseconds},
        }

    def _note(self, peer: str, request: Request, actions: np.ndarray, stages: dict[str, float]) -> None:
        self.measures.time(stages)
        self._live.see(peer, request, actions)

    def _read(self, engine: Engine, frame: Any) -> Request:
        if not isinstance(frame, bytes):
            raise InputError("a request is a binary frame")
        return engine.reader.read(msgpack_arrays.unpack(frame))

    def _work(self, kind: tuple[Engine, Solver | None, bool], requests: Sequence[Request]) -> list[Any]:
        """An answer or an error for each request; in the worker."""
        engine, solver, planned = kind
        seeds = [request.seed or self._drawn() for request in requests]
        states = np.stack([request.state for request in requests])
        ahead = [request.ahead for request in requests] if planned else ()
        actions, well_formed, times = engine.policy.infer([r.row for r in requests], states, seeds, solver, ahead)
        self.measures.called(len(requests), int(np.sum(~well_formed)))
        finite = np.isfinite(actions).all(axis=(1, 2))
        broken = InputError("the policy gave actions that are not finite")
        return [
            (chunk, ok, times) if whole else broken
            for chunk, ok, whole in zip(actions, well_formed, finite, strict=True)
        ]

    def _drawn(self) -> tuple[int, int]:
        self._looks = (self._looks + 1) % SEEDS
        return self._seed, self._looks

    # HTTP

    async def _http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """What plain HTTP asks for; None lets a websocket begin."""
        path = request.path.split("?")[0]
        if path == "/healthz":
            return connection.respond(503 if self._draining else 200, "going away\n" if self._draining else "OK\n")
        peer = ":".join(map(str, connection.remote_address[:2]))
        if not self._knows(request.headers.get_all("Authorization")):
            self.measures.turn_away("key")
            logging.warning("%s: wrong or no API key", peer)
            response = connection.respond(http.HTTPStatus.UNAUTHORIZED, "a valid API key is needed\n")
            response.headers["WWW-Authenticate"] = 'Basic realm="pizero_jax", charset="UTF-8"'
            return response
        if "websocket" not in request.headers.get("Upgrade", "").lower():
            return await self._page(connection, path)
        if request.headers.get("Origin") is not None:  # a page of somebody else's, in the browser of one who may ask
            self.measures.turn_away("origin")
            logging.warning("%s: turned away, as it is a page in a browser", peer)
            return connection.respond(http.HTTPStatus.FORBIDDEN, "browsers may not ask\n")
        if self._draining or len(self._connections) >= self.settings.connections:
            self.measures.turn_away("busy")
            logging.warning("%s: turned away, as there are too many connections or the server is going away", peer)
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "busy: too many connections\n")
        return None

    async def _page(self, connection: ServerConnection, path: str) -> Response:
        if path == "/":
            return _typed(connection.respond(200, live_page.HTML), "text/html", live_page.POLICY)
        if path == "/metrics":
            return _typed(connection.respond(200, self.measures.text()), "text/plain; version=0.0.4")
        if path == "/live.json":
            described = metadata(self._engine.policy) | {"queue": len(self._batcher)}
            described |= {"connections": len(self._connections), "percentiles": self.measures.percentiles()}
            drawn = asyncio.get_running_loop().run_in_executor(self._preparing, self._live.text, described)
            return _typed(connection.respond(200, await drawn), "application/json")
        return connection.respond(http.HTTPStatus.NOT_FOUND, "there are /, /healthz, /metrics and the websocket\n")

    def _knows(self, authorization: list[str]) -> bool:
        """Whether it is `Api-Key KEY`, or HTTP's basic one with KEY as the password; always, where no key is set."""
        if not self.settings.api_keys:
            return True
        scheme, _, given = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() == "basic":
            given = _password(given)
        elif scheme.lower() != "api-key":
            given = ""
        found = [hmac.compare_digest(given.encode(), key.encode()) for key in self.settings.api_keys]
        return any(found)  # all are compared: how long it takes tells nothing


def metadata(policy: CompiledPolicy) -> dict[str, Any]:
    """What a client has to know of the policy: the first frame."""
    trained, config = policy.trained, policy.trained.config
    return {
        "policy": config.policy.name,
        "step": trained.step,
        "weights": held_as(trained),
        "cameras": dict(config.data.cameras),
        "image_size": config.policy.image_size,
        "state_dim": len(trained.statistics["state"].mean),
        "action_dim": len(trained.statistics["actions"].mean),
        "chunk": config.policy.chunk,
        "num_steps": [solver.num_steps for solver in policy.solvers],
        "solver": [solver.method for solver in policy.solvers],
        "hz": config.data.chunk_hz or config.data.hz,
        "blind": config.data.blind,
        "max_delay": config.loss.max_delay if policy.real_time else None,
        "env": dataclasses.asdict(config.env),
        "versions": dict(trained.versions),
    }


def _typed(response: Response, kind: str, policy: str = "") -> Response:
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = f"{kind}; charset=utf-8" if ";" not in kind else kind
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if policy:
        response.headers["Content-Security-Policy"] = policy
    return response


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
