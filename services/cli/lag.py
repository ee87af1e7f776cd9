"""`headsup lag` and `headsup resume`: how far each service has read, and how a halted partition goes on."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.table import Table

from services.cli.context import AsJson, Data, Service, attached, emit_json, out, services
from shared.bus.port import Admin, Bounds, Partition
from shared.errors import Halt
from shared.process import FAILED, OK, Parts
from shared.settings import BadSettings, load
from shared.store import offsets
from shared.store.offsets import Position


@dataclass(frozen=True, slots=True)
class Row:
    """One partition as one service reads it. `applied` is the next offset by the database (None: never read), which
    counts; `committed` the group's, for lag tools. `seconds` is the age of the first record not applied."""

    service: str
    topic: str
    partition: int
    applied: int | None
    committed: int | None
    end: int
    lag: int
    seconds: float
    halted: str | None


def lag(ctx: typer.Context, data: Data = None, json: AsJson = False) -> None:
    """How far each service is behind, by topic and partition, in records and in seconds, and what is halted and why.

    The database's offsets count; the group's commits follow within a second or so, for lag tools. A halted partition
    makes the exit code 1.
    """
    settings = load(data=data)

    async def look() -> Sequence[Row]:
        async with attached(settings) as parts:
            return await rows(parts, services(ctx).values())

    found = asyncio.run(look())
    if json:
        emit_json([asdict(row) for row in found])
    else:
        _show(found)
    raise typer.Exit(FAILED if any(row.halted for row in found) else OK)


async def rows(parts: Parts, chosen: Collection[Service]) -> Sequence[Row]:
    """Every input partition of these services."""
    admin = parts.bus.admin()
    found: list[Row] = []
    try:
        for service in chosen:
            partitions = await admin.partitions(service.topics)
            committed = await admin.committed(service.group)
            async with parts.database.transaction() as connection:
                stored = await offsets.positions(connection, service.name)
            bounds = await admin.bounds(partitions)
            for p in partitions:
                position = stored.get(p) or Position(None, 0)
                seconds, behind = await _behind(parts, admin, p, position, bounds[p])
                found.append(
                    Row(
                        service.name,
                        *p,
                        position.next,
                        committed.get(p),
                        bounds[p].end,
                        behind,
                        seconds,
                        position.halted,
                    )
                )
    finally:
        await admin.close()
    return found


async def _behind(
    parts: Parts, admin: Admin, partition: Partition, position: Position, bounds: Bounds
) -> tuple[float, int]:
    at = bounds.first if position.next is None else position.next
    behind = max(bounds.end - at, 0)
    since = await admin.written_at(partition, at) if behind else None
    return (max((parts.clock.now() - since).total_seconds(), 0.0) if since else 0.0), behind


def _show(found: Sequence[Row]) -> None:
    table = Table("Service", box=None, header_style="bold")
    table.add_column("Topic", min_width=max((len(row.topic) for row in found), default=0))
    for name in ("Partition", "Applied", "Committed", "End", "Lag", "Seconds"):
        table.add_column(name, justify="right")
    table.add_column("State")
    for row in found:
        numbers = [row.partition, row.applied, row.committed, row.end, row.lag]
        cells = ["-" if n is None else f"{n:,}" for n in numbers]
        state = f"[red]halted: {row.halted}[/]" if row.halted else ""
        table.add_row(row.service, row.topic, *cells, f"{row.seconds:,.1f}", state)
    out().print(table)


def resume(  # noqa: PLR0917 - the options of a command
    ctx: typer.Context,
    where: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE] TOPIC PARTITION", help="The halted partition; without SERVICE of all."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every halted partition.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Let the rest of a storm, up to the log's end, into the dead letters.")
    ] = False,
    from_first: Annotated[
        bool, typer.Option("--from-first", help="After lost data: read on from the first offset that the log has.")
    ] = False,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Let halted partitions go on, once what stopped them is mended; `headsup lag` shows which and why.

    The service takes it up within seconds. Exit code 1 when nothing was halted there.
    """
    settings = load(data=data)
    chosen, partition = _target(where or [], every, services(ctx))

    async def go_on() -> list[str]:
        async with attached(settings) as parts:
            return await _resume(parts, chosen, partition, accept, from_first)

    resumed = asyncio.run(go_on())
    if json:
        emit_json({"resumed": resumed})
    else:
        out().print("\n".join(f"{line} goes on." for line in resumed) or "Nothing was halted there.")
    raise typer.Exit(OK if resumed else FAILED)


def _target(
    where: Sequence[str], every: bool, known: Mapping[str, Service]
) -> tuple[Collection[Service], Partition | None]:
    if every:
        if where:
            raise BadSettings("give either --all or one partition")
        return known.values(), None
    if len(where) not in {2, 3} or not where[-1].isdecimal():
        raise BadSettings("give [SERVICE] TOPIC PARTITION, as `headsup lag` shows them, or --all")
    if len(where) == 3 and where[0] not in known:
        raise BadSettings(f"no such service: {where[0]}; there are: {', '.join(known)}")
    chosen = [known[where[0]]] if len(where) == 3 else known.values()
    return chosen, Partition(where[-2], int(where[-1]))


async def _resume(
    parts: Parts, chosen: Collection[Service], partition: Partition | None, accept: bool, from_first: bool
) -> list[str]:
    admin = parts.bus.admin()
    resumed = []
    try:
        for service in chosen:
            async with parts.database.transaction() as connection:
                stored = await offsets.positions(connection, service.name)
            halted = [p for p, position in stored.items() if position.halted and partition in {None, p}]
            bounds = await admin.bounds(halted) if halted else {}
            for p in halted:
                async with parts.database.transaction() as connection:
                    done = await offsets.resume(
                        connection,
                        service.name,
                        p,
                        accept_until=bounds[p].end if accept else None,
                        restart_at=bounds[p].first if from_first else None,
                    )
                if done:
                    resumed.append(f"{service.name} {p}")
    except Halt as error:
        raise Halt(f"{error.reason}; the topic has to be there before its partitions go on") from error
    finally:
        await admin.close()
    return resumed
