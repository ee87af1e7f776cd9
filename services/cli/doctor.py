"""`headsup doctor`: what works, what is missing, and what to do about it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass

import typer
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from services.cli.context import AsJson, Data, Service, attached, emit_json, out, read_running, services
from services.cli.provision import specs
from shared.clock import SystemClock
from shared.errors import HeadsupError
from shared.process import FAILED, OK, Parts, bus_at
from shared.settings import BadSettings, Settings, config_file, load, unknown_variables
from shared.store import deadletters, offsets
from shared.store.deadletters import unseal_record
from shared.store.migrate import pending

WANTED_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `ok` False means that something needed is missing, and `todo` says what to do."""

    name: str
    ok: bool
    detail: str
    todo: str = ""


def doctor(ctx: typer.Context, data: Data = None, json: AsJson = False) -> None:
    """Look at settings, data folder, database, bus and secret, and say what to do about what is missing. Changes
    nothing. Exit code 1 when something needed is missing."""
    found = [_python()]
    try:
        settings = load(data=data)
    except BadSettings as error:
        found.append(Check("settings", False, str(error), "correct them; docs/headsup.toml explains each"))
    else:
        found += asyncio.run(_examine(settings, services(ctx)))
    if json:
        emit_json({"ok": all(c.ok for c in found), "checks": [asdict(c) for c in found]})
    else:
        for check in found:
            mark = "[green]✓[/]" if check.ok else "[red]✗[/]"
            out().print(f"{mark} [bold]{check.name}[/]: {check.detail}")
            if check.todo:
                out().print(f"    → {check.todo}")
    raise typer.Exit(OK if all(c.ok for c in found) else FAILED)


async def _examine(settings: Settings, known: Mapping[str, Service]) -> list[Check]:
    return [check async for check in checks(settings, known)]


async def checks(settings: Settings, known: Mapping[str, Service]) -> AsyncIterator[Check]:
    """All findings, in the order in which one needs them."""
    yield _settings()
    yield _folder(settings)
    if settings.database_url or read_running(settings.data) is not None:
        yield await _database(settings)
    elif not settings.kafka:
        yield Check("running", False, "nothing is running on this data folder", "start it: `headsup up`")
        return
    else:
        yield Check("database", False, "HEADSUP_DATABASE is not set", "services on Kafka need a PostgreSQL: set it")
    yield await _bus(settings)
    if settings.database_url or not settings.kafka:
        yield await _secret(settings, known)
        yield await _halted(settings, known)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info[:2] >= WANTED_PYTHON
    return Check("python", fine, version, "" if fine else "Headsup needs Python 3.11 or later")


def _settings() -> Check:
    path = config_file()
    detail = f"environment and {path}" if path.is_file() else "environment only (no headsup.toml here)"
    if unknown := unknown_variables():
        return Check("settings", False, f"unknown: {', '.join(unknown)}", "mend the spelling; see docs/headsup.toml")
    return Check("settings", True, detail)


def _folder(settings: Settings) -> Check:
    folder = settings.data
    if not folder.exists():
        return Check("data folder", True, f"{folder} is not there yet; `headsup up` makes it")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("data folder", False, f"{folder} cannot be written", "give it to this user, or set HEADSUP_DATA")
    return Check("data folder", True, str(folder.resolve()))


async def _database(settings: Settings) -> Check:
    try:
        async with attached(settings) as parts:
            async with parts.database.transaction() as connection:
                version = await connection.scalar(text("SHOW server_version"))
            behind = await pending(parts.database)
    except (HeadsupError, SQLAlchemyError, OSError) as error:
        return Check("database", False, _words(error), "start it, or correct HEADSUP_DATABASE")
    if behind:
        return Check("database", False, f"not up to date: {', '.join(behind)}", "run `headsup db migrate`")
    return Check("database", True, f"PostgreSQL {version}, up to date")


async def _bus(settings: Settings) -> Check:
    wanted = {spec.name for spec in specs(settings)}
    name = settings.bus
    try:
        if settings.kafka:
            async with bus_at(settings.bus, "", SystemClock()) as bus:
                admin = bus.admin()
                try:
                    count = len(await admin.partitions(wanted))
                finally:
                    await admin.close()
        else:
            async with attached(settings) as parts:
                count = len(await parts.bus.admin().partitions(wanted))
    except HeadsupError as error:
        todo = "run `headsup topics apply`" if "exist" in error.reason else "start it, or correct HEADSUP_BUS"
        return Check("bus", False, f"{name}: {error.reason}", todo)
    except SQLAlchemyError as error:
        return Check("bus", False, f"{name}: {_words(error)}", "run `headsup db migrate`, then `headsup topics apply`")
    return Check("bus", True, f"{name}, {len(wanted)} topics with {count} partitions")


async def _secret(settings: Settings, known: Mapping[str, Service]) -> Check:
    """Whether what was sealed before can be opened: tried on the newest dead letter."""
    try:
        async with attached(settings) as parts:
            tried = await _unseal_newest(parts, known)
    except ValueError:
        return Check("secret", False, "it does not open what was sealed before", "set HEADSUP_SECRET to the former one")
    except (HeadsupError, SQLAlchemyError, OSError) as error:
        return Check("secret", False, _words(error), "mend the database first")
    return Check("secret", True, "it opens what was sealed before" if tried else "set; nothing to try it on yet")


async def _unseal_newest(parts: Parts, known: Mapping[str, Service]) -> bool:
    for service in known.values():
        async with parts.database.transaction() as connection:
            newest = await deadletters.listed(connection, service.name, open_only=False, limit=1)
            found = await deadletters.fetch(connection, service.name, newest[0].id) if newest else None
        if found is not None:
            unseal_record(parts.sealer, found[0].topic, found[1])
            return True
    return False


async def _halted(settings: Settings, known: Mapping[str, Service]) -> Check:
    try:
        async with attached(settings) as parts, parts.database.transaction() as connection:
            halted = [
                f"{service.name} {partition}"
                for service in known.values()
                for partition, position in (await offsets.positions(connection, service.name)).items()
                if position.halted
            ]
    except (HeadsupError, SQLAlchemyError, OSError) as error:
        return Check("partitions", False, _words(error), "mend the database first")
    if halted:
        return Check("partitions", False, f"halted: {', '.join(halted)}", "`headsup lag` says why; `headsup resume`")
    return Check("partitions", True, "none is halted")


def _words(error: Exception) -> str:
    if isinstance(error, HeadsupError):
        return error.reason
    return str(getattr(error, "orig", None) or error).partition("\n")[0]
