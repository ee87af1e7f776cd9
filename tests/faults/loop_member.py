"""One service of the loop in a process of its own, wired as in production, with seams that die where they are told to.

Processes are forked from one that has loaded everything already, so that killing one and starting the next takes a
fraction of a second.
"""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.cli import SERVICES
from services.dispatcher import __main__ as dispatcher
from services.dispatcher.channels.port import Channel, Message, Outcome
from shared import process
from shared.bus import connect
from shared.bus.kafka import KafkaBus
from shared.bus.port import Bus
from shared.clock import SystemClock
from shared.process import BUS_POOL, Build, Built, Doors, Parts
from shared.seal import Sealer
from shared.settings import Settings
from shared.store.database import Database
from shared.telemetry import Metrics, configure_logging
from tests.faults.traps import Trap, TrappedBus, TrappedDatabase, caller

BEFORE_CALL: Final = "Channel.send: before the call"
AFTER_CALL: Final = "Channel.send: after the call"
WROTE: Final = text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")

context: Final = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Spec:
    """What a process is to be. `settings` are those of `shared.settings.Settings`; its output goes to `log`. It dies at
    the `nth` pass of `point`."""

    service: str
    settings: Mapping[str, Any] = field(repr=False)
    log: str
    point: str = ""
    nth: int = 1
    session_ms: int = 1500


class LoopDatabase(TrappedDatabase):
    """A transaction passes the trap only where it wrote something: the sender looks several times a second."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        site = caller(sys._getframe(1))
        wrote = False
        async with Database.transaction(self) as connection:
            yield connection
            wrote = self._trap.point.startswith(f"{site}:") and bool(await connection.scalar(WROTE))
            if wrote:
                self._trap.at(f"{site}: before commit")
        if wrote:
            self._trap.at(f"{site}: after commit")


class TrappedChannel:
    """A real one that tells the trap of its calls."""

    def __init__(self, real: Channel, trap: Trap) -> None:
        self._real = real
        self._trap = trap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def send(self, message: Message) -> Outcome:
        self._trap.at(BEFORE_CALL)
        outcome = await self._real.send(message)
        self._trap.at(AFTER_CALL)
        return outcome


def start(spec: Spec) -> Any:
    """The running process (`multiprocessing.Process`)."""
    started = context.Process(target=main, args=(spec,), daemon=True)
    started.start()
    return started


def main(spec: Spec) -> None:
    sink = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(sink, stream)
    settings = Settings(**spec.settings)
    configure_logging(json=True, level=settings.log_level)
    sys.exit(process.run(lambda stop: _serve(stop, spec, settings)))


async def _serve(stop: asyncio.Event, spec: Spec, settings: Settings) -> int:
    trap = Trap(spec.point, spec.nth)
    async with AsyncExitStack() as stack:
        database = LoopDatabase(settings.database_url, trap)
        stack.push_async_callback(database.close)
        for_bus = Database(settings.database_url, BUS_POOL)
        stack.push_async_callback(for_bus.close)
        real: Bus = connect(settings.bus, for_bus.engine)
        if settings.kafka:
            real = KafkaBus([settings.bus.removeprefix("kafka://")], session_timeout_ms=spec.session_ms)
        stack.push_async_callback(real.close)
        bus = cast("Bus", TrappedBus(real, trap))
        sealer = Sealer.from_base64(settings.secret.get_secret_value())
        parts = Parts(bus, database, sealer, SystemClock(), Metrics())
        return await process.serve_services(stop, parts, settings, {spec.service: _build(spec.service, trap)})


def _build(service: str, trap: Trap) -> Build[Settings]:
    if service != dispatcher.SCHEMA:
        return next(one.build for one in SERVICES if one.name == service)

    def build(parts: Parts, settings: Settings, doors: Doors) -> Built:
        chosen = {
            name: replace(provider, channel=cast("Channel", TrappedChannel(provider.channel, trap)))
            for name, provider in dispatcher.providers(parts, settings).items()
        }
        return dispatcher.wired(parts, settings, doors, chosen)

    return build


def output(folder: Path) -> str:
    """All that the processes wrote."""
    return "".join(path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.log")))
