"""`headsup dead-letters`: what could not be applied, why, and a second try once the cause is mended."""

import asyncio
import base64
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from services.cli.context import AsJson, Data, Service, attached, emit_json, out, services
from shared.bus.port import Message
from shared.errors import Halt
from shared.process import Parts
from shared.seal import Sealer
from shared.settings import BadSettings, load
from shared.store import deadletters
from shared.store.deadletters import DeadLetter, unseal_record

Found = tuple[tuple[str, ...], DeadLetter]
"""One refused record with the services that refused it: what none can read is refused by each that reads its topic."""


def listing(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="The ones that were retried, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many of each service.")] = 100,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """The refused records, newest first: where each stood, which field is at fault and why."""
    settings = load(data=data)

    async def look() -> Sequence[Found]:
        async with attached(settings) as parts:
            return await _listed(parts, services(ctx).values(), not every, limit)

    found = asyncio.run(look())
    if json:
        return emit_json([_as_json(*one) for one in found])
    if not found:
        return out().print("No dead letters.")
    table = Table("ID", "Services", "Where", "Field", "Why", "At (UTC)", box=None, header_style="bold")
    table.columns[0].no_wrap = True
    for names, letter in found:
        where = f"{deadletters.partition_of(letter)} {letter.offset}"
        why = f"{letter.reason} (retried)" if letter.retried_at else letter.reason
        table.add_row(str(letter.id), ", ".join(names), where, letter.field, why, f"{letter.at:%Y-%m-%d %H:%M:%S}")
    return out().print(table)


def show(
    ctx: typer.Context,
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `dead-letters list` shows it.")],
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show key and body too. They may hold a customer's phone.")
    ] = False,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """One refused record: where it stood, why it was refused, its headers; with --reveal its key and body."""
    settings, wanted = load(data=data), _id(letter_id)

    async def look() -> tuple[tuple[str, ...], DeadLetter, Message]:
        async with attached(settings) as parts:
            return await _opened(parts, services(ctx).values(), wanted)

    names, letter, message = asyncio.run(look())
    told = _as_json(names, letter)
    told["headers"] = {name: value.decode(errors="replace") for name, value in message.headers}
    if reveal:
        told |= {"key": _text(message.key), "body": _text(message.value)}
    else:
        told["bytes"] = len(message.value or b"")
    if json:
        return emit_json(told)
    table = Table(box=None, show_header=False)
    for name, value in told.items():
        table.add_row(f"[bold]{name}[/]", _plain(value))
    return out().print(table)


def retry(
    ctx: typer.Context,
    letter_ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Which ones.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that were not retried yet.")] = False,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Append refused records to their topics again, as they were, once the cause is mended. One that is refused again
    becomes a new dead letter; one that was applied before changes nothing."""
    if every == bool(letter_ids):
        raise BadSettings("give either the ids of dead letters or --all")
    settings, wanted = load(data=data), [_id(text) for text in letter_ids or []]

    async def again() -> int:
        async with attached(settings) as parts:
            if every:
                return await _retry_all(parts, services(ctx).values())
            return await _retry(parts, services(ctx).values(), wanted)

    count = asyncio.run(again())
    if json:
        return emit_json({"retried": count})
    return out().print(f"{count:,} appended again.")


async def _listed(parts: Parts, chosen: Collection[Service], open_only: bool, limit: int) -> list[Found]:
    found: dict[UUID, Found] = {}
    for service in chosen:
        async with parts.database.transaction() as connection:
            letters = await deadletters.listed(connection, service.name, open_only, limit)
        for letter in letters:
            names, first = found.get(letter.id, ((), letter))
            found[letter.id] = ((*names, service.name), first)
    return sorted(found.values(), key=lambda one: one[1].at, reverse=True)


async def _opened(
    parts: Parts, chosen: Collection[Service], letter_id: UUID
) -> tuple[tuple[str, ...], DeadLetter, Message]:
    found: dict[str, tuple[DeadLetter, bytes]] = {}
    for service in chosen:
        async with parts.database.transaction() as connection:
            kept = await deadletters.fetch(connection, service.name, letter_id)
        if kept is not None:
            found[service.name] = kept
    if found:
        letter, sealed = next(iter(found.values()))
        return tuple(found), letter, _unsealed(parts.sealer, letter, sealed)
    raise Halt(f"there is no dead letter {letter_id}; `headsup dead-letters list --all` shows them")


def _unsealed(sealer: Sealer, letter: DeadLetter, sealed: bytes) -> Message:
    try:
        return unseal_record(sealer, letter.topic, sealed)
    except ValueError as error:
        raise Halt(f"{letter.id}: {error}; HEADSUP_SECRET must be the one that it was sealed with") from None


async def _retry(parts: Parts, chosen: Collection[Service], wanted: Sequence[UUID]) -> int:
    """Append first, mark then: a crash in between appends twice, which is harmless; the other way would lose one."""
    opened = [await _opened(parts, chosen, letter_id) for letter_id in wanted]
    producer = parts.bus.producer()
    try:
        for names, letter, message in opened:
            await producer.send([message])
            async with parts.database.transaction() as connection:
                for name in names:
                    await deadletters.mark_retried(connection, name, letter.id, parts.clock.now())
    finally:
        await producer.stop()
    return len(opened)


async def _retry_all(parts: Parts, chosen: Collection[Service]) -> int:
    """In slices, and only those that are there now: what is refused again is not tried for ever."""
    waiting = [letter.id for _, letter in await _listed(parts, chosen, open_only=True, limit=1_000_000)]
    waiting.reverse()
    return sum([await _retry(parts, chosen, waiting[i : i + 100]) for i in range(0, len(waiting), 100)])


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise BadSettings(f"{text} is no dead letter's id; `headsup dead-letters list` shows them") from None


def _as_json(names: tuple[str, ...], letter: DeadLetter) -> dict[str, Any]:
    return {"services": names, **asdict(letter)}


def _text(raw: bytes | None) -> str | None:
    """UTF-8 as it is, anything else as base64."""
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {text}" for name, text in value.items())
    return "" if value is None else str(value)
