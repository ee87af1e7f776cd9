"""What the commands share: the services there are, the running instance, and how results are told."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, cast

import msgspec
import typer
from rich.console import Console
from sqlalchemy import text

from shared.bus.port import Bus
from shared.clock import Clock, SystemClock, VirtualClock
from shared.errors import Halt
from shared.process import Built, Doors, Parts, bus_at, connected, one_line
from shared.seal import Sealer
from shared.settings import Settings
from shared.store.database import Database

Data = Annotated[
    Path | None, typer.Option("--data", help="The data folder of embedded mode.", envvar=None, show_default=".headsup")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines, not text for people.")]

RUNNING: Final = "running.json"


@dataclass(frozen=True, slots=True)
class Service:
    """One service as the command line sees it. Its name is its schema."""

    name: str
    topics: tuple[str, ...]
    build: Callable[[Parts, Settings, Doors], Built]

    @property
    def group(self) -> str:
        return f"headsup.{self.name}"


def services(ctx: typer.Context) -> Mapping[str, Service]:
    """All services, by name."""
    return cast("Mapping[str, Service]", ctx.obj)


class Running(msgspec.Struct):
    """What a running `headsup up` leaves in its data folder for the other commands (mode 600)."""

    pid: int
    url: str
    database: str
    bus: str
    virtual: bool

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def write_running(folder: Path, running: Running) -> None:
    draft = folder / f"{RUNNING}.{os.getpid()}"
    draft.touch(mode=0o600)
    draft.write_bytes(msgspec.json.encode(running))
    draft.replace(folder / RUNNING)


def read_running(folder: Path) -> Running | None:
    """The instance at work on this folder; None where there is none (a file left by a killed one does not count)."""
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        running = msgspec.json.decode((folder / RUNNING).read_bytes(), type=Running)
        return running if running.alive else None
    return None


def must_run(settings: Settings) -> Running:
    running = read_running(settings.data)
    if running is None:
        raise Halt(
            f"nothing is running on the data folder {settings.data}: start `headsup up --data {settings.data}`, or set"
            " HEADSUP_DATABASE"
        )
    return running


def sealer_of(settings: Settings) -> Sealer:
    """The installation's secret: as set, else the one in the data folder (made there when absent)."""
    if secret := settings.secret.get_secret_value():
        return Sealer.from_base64(secret)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Sealer.from_file(settings.data / "secret")


@asynccontextmanager
async def attached(settings: Settings) -> AsyncIterator[Parts]:
    """The parts of the installation as a second client: the set database, else that of the running instance. Raises
    `Halt` where nothing is running."""
    if settings.database_url:
        async with connected(settings.bus, settings.database_url, sealer_of(settings), SystemClock()) as parts:
            yield parts
        return
    running = must_run(settings)
    clock = await _clock_of(running)
    async with connected(running.bus, running.database, sealer_of(settings), clock) as parts:
        yield parts


@asynccontextmanager
async def attached_bus(settings: Settings) -> AsyncIterator[Bus]:
    """The bus alone; with Kafka no database is needed for it."""
    if settings.kafka or settings.database_url:
        async with bus_at(settings.bus, settings.database_url, SystemClock()) as bus:
            yield bus
        return
    running = must_run(settings)
    async with bus_at(running.bus, running.database, await _clock_of(running)) as bus:
        yield bus


async def clock_of(settings: Settings) -> Clock:
    """What time the installation believes it is."""
    running = None if settings.database_url else read_running(settings.data)
    return SystemClock() if running is None else await _clock_of(running)


async def _clock_of(running: Running) -> Clock:
    """The instance's time: a virtual clock is read off what its workers last noted."""
    if not running.virtual:
        return SystemClock()
    database = Database(running.database, pool_size=1)
    try:
        return VirtualClock(await last_instant(database) or SystemClock().now())
    finally:
        await database.close()


async def last_instant(database: Database) -> datetime | None:
    """The newest instant up to which a service has applied its input: time has come this far at least."""
    async with database.transaction() as connection:
        schemas = await connection.scalars(
            text("SELECT table_schema FROM information_schema.tables WHERE table_name = 'offsets' ORDER BY 1")
        )
        instants = [
            await connection.scalar(text(f"SELECT max(applied_until) FROM {schema}.offsets"))  # noqa: S608 - ours
            for schema in schemas.all()
        ]
    return max((i for i in instants if i is not None), default=None)


def out() -> Console:
    """Results, for people: standard output."""
    return Console(highlight=False)


def err() -> Console:
    """Progress and words on the side: standard error."""
    return Console(stderr=True, highlight=False)


def emit_json(value: Any) -> None:
    """One JSON document on one line of standard output."""
    typer.echo(one_line(value))
