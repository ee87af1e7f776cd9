"""Running services in one process: what they are wired with, and their life from start to an orderly end."""

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

import structlog
import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI
from pydantic import SecretStr

from shared.access import Access
from shared.bus import connect
from shared.bus.port import Bus, Producer
from shared.clock import Clock, SystemClock
from shared.errors import Halt, HeadsupError
from shared.http import create_app
from shared.seal import Sealer
from shared.store.database import Database
from shared.store.migrate import pending
from shared.store.stores import StoredKeys
from shared.telemetry import Metrics, configure_logging
from shared.worker import Background, Handler, Worker, WorkerSettings

log = structlog.get_logger(__name__)

DRAIN_SECONDS: Final = 9.5
"""A stop takes no longer than this: batches in hand, requests in hand, the last commit."""
COLLECT_AFTER: Final = 50_000
"""How many new objects the collector waits for; by itself Python waits for 700."""
BUS_POOL: Final = 12
"""The local bus has connections of its own, so that a long batch never keeps a read waiting for one."""

OK, FAILED, USAGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Parts:
    """What every service of a process is wired with."""

    bus: Bus
    database: Database
    sealer: Sealer
    clock: Clock
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Doors:
    """What a service's REST routes are made with: `producer` appends to the bus (it connects when it is first used),
    `access` says who may call."""

    producer: Producer
    access: Access


@dataclass(frozen=True, slots=True)
class Built:
    """One service, wired: its worker, and its REST routes where it has any."""

    worker: Worker
    router: APIRouter


class Bounds(Protocol):
    """Between which times an event may have happened, as an installation has it."""

    @property
    def horizon(self) -> timedelta: ...
    @property
    def ahead(self) -> timedelta: ...


class Configured(Bounds, Protocol):
    """What a process needs to know before it has any parts; `shared.settings.Settings` is one."""

    @property
    def bus(self) -> str: ...
    @property
    def database_url(self) -> str: ...
    @property
    def secret(self) -> SecretStr: ...
    @property
    def api_key_hash(self) -> str: ...
    @property
    def address(self) -> tuple[str, int]: ...
    @property
    def log_format(self) -> str: ...
    @property
    def log_level(self) -> str: ...


S = TypeVar("S", bound=Configured)
Build = Callable[[Parts, S, Doors], Built]


def worker_of(
    parts: Parts,
    settings: WorkerSettings,
    bounds: Bounds,
    handler: Handler,
    background: Sequence[Background] = (),
) -> Worker:
    """A service's worker on these parts, with what the installation has set for all workers."""
    return Worker(
        replace(settings, horizon=bounds.horizon, ahead=bounds.ahead),
        handler,
        bus=parts.bus,
        database=parts.database,
        sealer=parts.sealer,
        clock=parts.clock,
        metrics=parts.metrics,
        background=background,
    )


@asynccontextmanager
async def connected(bus_url: str, database_url: str, sealer: Sealer, clock: Clock) -> AsyncIterator[Parts]:
    """The parts, closed at the end. Nothing is contacted before it is used. Raises ValueError for a bad URL."""
    database = Database(database_url)
    try:
        async with bus_at(bus_url, database_url, clock) as bus:
            yield Parts(bus, database, sealer, clock, Metrics())
    finally:
        await database.close()


@asynccontextmanager
async def bus_at(bus_url: str, database_url: str, clock: Clock) -> AsyncIterator[Bus]:
    """The bus alone; `database_url` is used by the local one only."""
    database = Database(database_url, BUS_POOL) if bus_url == "local:" else None
    bus = connect(bus_url, database.engine if database else None, clock)
    try:
        yield bus
    finally:
        await bus.close()
        if database is not None:
            await database.close()


def listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket on host and port; port 0 takes a free one. Raises `Halt` where the port cannot be had."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise Halt(
            f"cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}): stop what does, or give another"
            " --port (HEADSUP_PORT)"
        ) from None
    return bound


class _Server(uvicorn.Server):
    """Signals are the process's business, not the web server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def serve(
    stop: asyncio.Event,
    workers: Sequence[Worker],
    app: FastAPI,
    bound: socket.socket,
    aside: Sequence[Coroutine[Any, Any, None]] = (),
) -> int:
    """Run all of it until `stop`, then end in order within 10 s. Returns the exit code: 0, or 1 where a worker, the
    server or one of the `aside` tasks ended by itself. What is cut off at the end is done again at the next start."""
    server = _Server(
        uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=5)
    )
    running = {asyncio.create_task(worker.run(), name=worker.settings.schema): worker.stop for worker in workers}
    running[asyncio.create_task(server.serve(sockets=[bound]), name="http")] = lambda: _end(server)
    for coroutine in aside:
        task = asyncio.create_task(coroutine)
        running[task] = lambda task=task: task.cancel()  # type: ignore[misc]
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, *running}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    code = OK
    for task in (t for t in running if t.done()):
        code = FAILED
        log.error("task_ended", task=task.get_name(), exc_info=None if task.cancelled() else task.exception())
    for end in running.values():
        end()
    _, late = await asyncio.wait(running, timeout=DRAIN_SECONDS)
    for task in late:
        log.warning("task_cut_off", task=task.get_name())
        task.cancel()
    return code


async def serve_services(stop: asyncio.Event, parts: Parts, settings: S, builds: Mapping[str, Build[S]]) -> int:
    """Some services, by schema, on a prepared database and bus, until `stop`; the exit code. Raises `Halt` where
    migrations are pending or the port cannot be had."""
    if behind := await pending(parts.database):
        raise Halt(f"the database is not up to date ({', '.join(behind)}): run `headsup db migrate`")
    if not settings.api_key_hash:
        log.warning("no_first_api_key", effect="REST lets in only keys that were set before: set HEADSUP_API_KEY")
    bound = listen(settings.address)
    log.info("listening", url="http://{}:{}".format(*bound.getsockname()[:2]))
    doors = Doors(parts.bus.producer(), Access(settings.api_key_hash, StoredKeys(parts.database, min(builds))))
    built = [build(parts, settings, doors) for build in builds.values()]
    workers = [one.worker for one in built]
    try:
        return await serve(stop, workers, create_app(workers, parts.metrics, [one.router for one in built]), bound)
    finally:
        bound.close()
        await doors.producer.stop()


def alone(schema: str, load: Callable[[], S], build: Build[S]) -> int:
    """Run one service in this process, set up by its environment, until a signal; the exit code."""
    try:
        settings = load()
        configure_logging(settings.log_format == "json", settings.log_level)
        if not settings.database_url:
            raise Halt("HEADSUP_DATABASE is not set: `headsup up` brings its own database, a single service does not")
        sealer = Sealer.from_base64(settings.secret.get_secret_value())

        async def main(stop: asyncio.Event) -> int:
            async with connected(settings.bus, settings.database_url, sealer, SystemClock()) as parts:
                return await serve_services(stop, parts, settings, {schema: build})

        return run(main)
    except ValueError as error:  # BadSettings: the text names every variable at fault
        complain(str(error))
        return USAGE
    except HeadsupError as error:
        complain(error.reason)
        return FAILED


def _end(server: uvicorn.Server) -> None:
    server.should_exit = True


def spare_collector() -> None:
    """Python's cyclic collector walks every living object again and again while a batch builds new ones, nearly none of
    which form cycles: a fifth to a third of a backlog's processor time. What is loaded by now it leaves alone from here
    on, and it looks less often at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


def run(main: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Run `main` to its end and return its exit code. SIGTERM and SIGINT set the event, which asks it to end in order;
    a second signal ends the process at once (nothing is lost: it is done again at the next start)."""

    async def signalled() -> int:
        stop = asyncio.Event()

        def asked(number: int) -> None:
            if stop.is_set():
                os._exit(128 + number)
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked, number)
        return await main(stop)

    spare_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(signalled())


def complain(text: str) -> None:
    """A plain word for people on standard error."""
    sys.stderr.write(f"headsup: {text}\n")


def one_line(value: object) -> str:
    """JSON for machines; times and ids as text."""
    return json.dumps(value, default=str, ensure_ascii=False)
