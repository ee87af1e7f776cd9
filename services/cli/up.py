"""`headsup up` and `headsup run`: the processes."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.panel import Panel

from services.cli.context import (
    RUNNING,
    AsJson,
    Data,
    Running,
    Service,
    emit_json,
    err,
    last_instant,
    out,
    sealer_of,
    services,
    write_running,
)
from services.cli.provision import apply_topics
from shared import http, process
from shared.access import Access, key_hash
from shared.bus.local import LocalBus
from shared.bus.port import Bus
from shared.clock import Clock, SystemClock, VirtualClock
from shared.errors import Halt, Retry
from shared.process import Doors, Parts
from shared.settings import BadSettings, Settings, load
from shared.store.database import Database
from shared.store.embedded import EmbeddedPostgres
from shared.store.migrate import upgrade_all
from shared.store.stores import StoredKeys
from shared.telemetry import configure_logging
from shared.virtual import Driver

log = structlog.get_logger(__name__)

TRIM_SECONDS = 3600.0
AHEAD = timedelta(minutes=1)

Port = Annotated[int | None, typer.Option("--port", help="Where HTTP is served; 0 takes a free one. [8080]")]
ClockText = Annotated[
    str | None,
    typer.Option("--clock", metavar="virtual[:START][@SPEED]", help="Virtual time instead of the machine's own."),
]


def up(ctx: typer.Context, data: Data = None, port: Port = None, clock: ClockText = None, json: AsJson = False) -> None:
    """Run all of Headsup in this process, with its own database in the data folder. Nothing has to be set up.

    With **--clock virtual** time stands still at START (an RFC 3339 time with offset; else now) until
    `POST /v1/clock/advance` moves it; with **@SPEED** it passes that many times as fast, `virtual@60` is a minute a
    second. Ctrl-C or SIGTERM ends it in order; after a crash the next `up` takes over and goes on.
    """
    settings = load(data=data, port=port, clock=clock)
    configure_logging(settings.log_format == "json", settings.log_level)
    raise typer.Exit(process.run(lambda stop: _up(stop, settings, services(ctx), json)))


def run(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="SERVICE...", help="One or more services, such as detector.")],
    port: Port = None,
) -> None:
    """Run some of the services in this process, on the bus and database that are set (HEADSUP_BUS, HEADSUP_DATABASE).

    Start as many processes as there is work for: they share the partitions. `db migrate` and `topics apply` come
    first. The port serves the services' REST, health and metrics.
    """
    known = services(ctx)
    if unknown := sorted(set(names) - known.keys()):
        raise BadSettings(f"no such service: {', '.join(unknown)}; there are: {', '.join(known)}")
    settings = load(port=port)
    if not settings.database_url:
        raise BadSettings("HEADSUP_DATABASE is needed to run single services; `headsup up` brings its own database")
    if settings.virtual is not None:
        raise BadSettings("HEADSUP_CLOCK: a virtual clock is for `headsup up` only")
    configure_logging(settings.log_format == "json", settings.log_level)
    chosen = [known[name] for name in dict.fromkeys(names)]
    raise typer.Exit(process.run(lambda stop: _run(stop, settings, chosen)))


async def _run(stop: asyncio.Event, settings: Settings, chosen: Sequence[Service]) -> int:
    async with process.connected(settings.bus, settings.database_url, sealer_of(settings), SystemClock()) as parts:
        return await process.serve_services(stop, parts, settings, {one.name: one.build for one in chosen})


async def _up(stop: asyncio.Event, settings: Settings, known: Mapping[str, Service], json: bool) -> int:
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        url = settings.database_url
        if not url:
            with err().status("Starting the database …"):
                url = await stack.enter_async_context(EmbeddedPostgres(settings.data))
        bound = stack.enter_context(process.listen(settings.address))
        await upgrade_all(url)
        clock = await _clock(settings, url)
        parts = await stack.enter_async_context(process.connected(settings.bus, url, sealer_of(settings), clock))
        await apply_topics(parts.bus, settings)
        hashed, key = _api_key(settings)
        doors = Doors(parts.bus.producer(), Access(hashed, StoredKeys(parts.database, min(known))))
        stack.push_async_callback(doors.producer.stop)
        built = [service.build(parts, settings, doors) for service in known.values()]
        workers = [one.worker for one in built]
        driver = _driver(settings, parts, workers)
        routers = [*(one.router for one in built), http.clock_routes(clock, driver, doors.access)]
        app = http.create_app(workers, parts.metrics, routers)
        where = "http://{}:{}".format(*bound.getsockname()[:2])
        running = Running(os.getpid(), where, url, settings.bus, isinstance(clock, VirtualClock))
        await stack.enter_async_context(_announced(settings, running))
        _greet(settings, running, clock, key, json)
        aside: list[Coroutine[Any, Any, None]] = [_trim(parts.bus)]
        if driver is not None:
            aside.append(driver.run())
        return await process.serve(stop, workers, app, bound, aside)


def _driver(settings: Settings, parts: Parts, workers: Sequence[Any]) -> Driver | None:
    if settings.virtual is None:
        return None
    assert isinstance(parts.clock, VirtualClock)
    return Driver(parts.clock, workers, parts.bus, parts.database, settings.virtual.speed)


async def _clock(settings: Settings, url: str) -> Clock:
    """The clock, which never stands before what was done on this database already."""
    database = Database(url, pool_size=1)
    try:
        last = await last_instant(database)
    finally:
        await database.close()
    real = SystemClock()
    if settings.virtual is None:
        if last is not None and last > real.now() + AHEAD:
            raise Halt(
                f"this database was used with a virtual clock, which stands at {last:%Y-%m-%d %H:%M} UTC: use"
                " --clock virtual, or another --data"
            )
        return real
    start = settings.virtual.start or real.now()
    return VirtualClock(max(start, last) if last is not None else start)


def _api_key(settings: Settings) -> tuple[str, str]:
    """The key's hash, and the key itself where it was made just now (it is kept nowhere)."""
    if settings.api_key_hash:
        return settings.api_key_hash, ""
    kept = settings.data / "api-key.sha256"
    if kept.exists():
        return kept.read_text().strip(), ""
    key = "hu_" + secrets.token_hex(24)
    kept.touch(mode=0o600)
    kept.write_text(key_hash(key) + "\n")
    return key_hash(key), key


@asynccontextmanager
async def _announced(settings: Settings, running: Running) -> AsyncIterator[None]:
    """Tell the other commands where to find this instance, for as long as it runs."""
    write_running(settings.data, running)
    try:
        yield
    finally:
        (settings.data / RUNNING).unlink(missing_ok=True)


async def _trim(bus: Bus) -> None:
    """The local log's retention; Kafka does this by itself."""
    while True:
        await asyncio.sleep(TRIM_SECONDS)
        if isinstance(bus, LocalBus):
            with contextlib.suppress(Retry):
                await bus.admin().trim()


def _greet(settings: Settings, running: Running, clock: Clock, key: str, json: bool) -> None:
    now = clock.now() if running.virtual else None
    if json:
        told: dict[str, Any] = {"url": running.url, "data": str(settings.data), "pid": running.pid, "now": now}
        return emit_json(told | ({"key": key} if key else {}))
    lines = [f"Serving       {running.url}   (/docs, /readyz, /metrics)", f"Data folder   {settings.data.resolve()}"]
    if key:
        lines.append(f"API key       {key}\n              Shown this once: keep it. HEADSUP_API_KEY sets another.")
    if now is not None:
        speed = settings.virtual.speed if settings.virtual else 0
        pace = f"{speed:g} times as fast" if speed else "stands still; POST /v1/clock/advance moves it"
        lines.append(f"Virtual time  {now:%Y-%m-%d %H:%M:%S} UTC, {pace}")
    option = "" if settings.data == Path(".headsup") else f" --data {settings.data}"
    lines.append(f"Publish       headsup publish events.jsonl{option}")
    lines.append("Stop          Ctrl-C")
    return out().print(Panel("\n".join(lines), title="Headsup is up", expand=False))
