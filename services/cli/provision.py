"""`topics apply`, `db migrate`, `schemas`: what has to be there before anything runs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import typer

from services.cli.context import AsJson, Data, emit_json, out, read_running
from shared.bus.port import Bus, TopicSpec
from shared.clock import SystemClock
from shared.events import schemas as event_schemas
from shared.events.topics import PARTITIONS, TOPICS
from shared.process import bus_at
from shared.settings import Settings, load
from shared.store.embedded import EmbeddedPostgres
from shared.store.migrate import schemas as database_schemas
from shared.store.migrate import upgrade_all


def specs(settings: Settings) -> Sequence[TopicSpec]:
    """The topics as these settings want them: busy ones with `topics.partitions`, the others as they are."""
    wanted = settings.topics
    return [
        replace(
            spec,
            partitions=wanted.partitions if spec.partitions == PARTITIONS else spec.partitions,
            retention_hours=wanted.retention_hours,
        )
        for spec in TOPICS
    ]


async def apply_topics(bus: Bus, settings: Settings) -> Sequence[str]:
    """Create what is missing; a line for each change."""
    admin = bus.admin()
    try:
        return await admin.apply(specs(settings))
    finally:
        await admin.close()


@asynccontextmanager
async def any_database(settings: Settings) -> AsyncIterator[str]:
    """The database's URL: as set, of the running instance, or of the data folder's server, run for the moment."""
    running = None if settings.database_url else read_running(settings.data)
    if settings.database_url or running is not None:
        yield settings.database_url or (running.database if running else "")
        return
    async with EmbeddedPostgres(settings.data) as url:
        yield url


def topics_apply(data: Data = None, json: AsJson = False) -> None:
    """Create missing topics and partitions on the bus (HEADSUP_BUS). Nothing is ever deleted or shrunk, so it is safe
    to run twice."""
    settings = load(data=data)

    async def apply() -> Sequence[str]:
        if settings.kafka:
            async with bus_at(settings.bus, "", SystemClock()) as bus:
                return await apply_topics(bus, settings)
        async with any_database(settings) as url:
            await upgrade_all(url)
            async with bus_at(settings.bus, url, SystemClock()) as bus:
                return await apply_topics(bus, settings)

    changes = asyncio.run(apply())
    if json:
        return emit_json({"changes": list(changes)})
    for line in changes or ["All topics are as they should be."]:
        out().print(line)
    return None


def db_migrate(data: Data = None, json: AsJson = False) -> None:
    """Bring every schema of the database to its newest version. Safe to run twice, and by two at once."""
    settings = load(data=data)

    async def migrate() -> None:
        async with any_database(settings) as url:
            await upgrade_all(url)

    asyncio.run(migrate())
    names = sorted(database_schemas())
    if json:
        return emit_json({"schemas": names})
    return out().print(f"Up to date: {', '.join(names)}.")


def schemas(ctx: typer.Context) -> None:
    """Write the JSON Schemas of all events to docs/schemas; options go to `python -m shared.events.schemas`."""
    raise typer.Exit(event_schemas.main(ctx.args))
