"""`headsup publish`: structured CloudEvents from a file, one a line, onto the bus."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, Final, NamedTuple

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from services.cli.context import AsJson, Data, attached_bus, emit_json, err, out, sealer_of
from shared.bus.port import Message, Producer
from shared.errors import Reject, Retry
from shared.events.envelope import MAX_BODY
from shared.ingest import prepare
from shared.process import FAILED, OK
from shared.seal import Sealer
from shared.settings import BadSettings, load

BATCH_MESSAGES: Final = 1000
BATCH_BYTES: Final = 8 * 1024 * 1024
ATTEMPTS: Final = 5
SHOWN: Final = 20
KEPT: Final = 1000
"""Refused lines that are told one by one; the rest is counted."""


class Refusal(NamedTuple):
    line: int
    field: str
    reason: str


@dataclass(slots=True)
class Summary:
    """What became of a file's lines. `lines` is how many were read and are settled; blank ones count for nothing."""

    lines: int = 0
    published: int = 0
    refused: int = 0
    errors: list[Refusal] = field(default_factory=list)

    def refuse(self, line: int, error: Reject) -> None:
        self.refused += 1
        if len(self.errors) < KEPT:
            self.errors.append(Refusal(line, error.field, error.reason))


def publish(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="One structured CloudEvent a line; - reads stdin.")],
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Append the events of a file to their topics. Refused lines are told with number, field and reason, and the others
    are published all the same; the exit code is 1 when any was refused.

    Phones are sealed on the way. Publishing a file again changes nothing: events are known by source and id.
    """
    settings = load(data=data)
    path = None if file == "-" else Path(file)
    if path is not None and not path.is_file():
        raise BadSettings(f"{file} is no file")
    summary = Summary()

    async def append(source: BinaryIO, moved: Callable[[int], None]) -> None:
        async with attached_bus(settings) as bus:
            producer = bus.producer()
            try:
                await _publish(source, producer, sealer_of(settings), summary, moved)
            finally:
                await producer.stop()

    with ExitStack() as stack:
        source = stack.enter_context(path.open("rb")) if path is not None else sys.stdin.buffer
        bar = stack.enter_context(_progress())
        task = bar.add_task("Publishing", total=path.stat().st_size if path is not None else None)
        try:
            asyncio.run(append(source, lambda size: bar.advance(task, size)))
        except Retry as error:
            again = f"{summary.published:,} events are published; publish the same file again, repeats are harmless"
            raise Retry(f"{error.reason}. {again}") from error
    _tell(summary, json)
    raise typer.Exit(FAILED if summary.refused else OK)


async def _publish(
    source: BinaryIO, producer: Producer, sealer: Sealer, summary: Summary, moved: Callable[[int], None]
) -> None:
    batch: list[Message] = []
    size = 0
    for number, line in _lines(source):
        moved(len(line))
        try:
            if line.strip():
                batch.append(prepare(sealer, line))
                size += len(line)
        except Reject as error:
            summary.refuse(number, error)
        if len(batch) == BATCH_MESSAGES or size > BATCH_BYTES:
            await _send(producer, batch)
            summary.published += len(batch)
            batch, size = [], 0
        summary.lines = number
    await _send(producer, batch)
    summary.published += len(batch)


async def _send(producer: Producer, batch: list[Message]) -> None:
    """A bus that is away for a moment is waited for; what may have been written twice is known by its id."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await producer.send(batch)
        except Retry:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(attempt)
    return None


def _lines(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Numbered lines in bounded memory: of one that is too long only the beginning, just long enough to be refused."""
    number = 0
    while line := source.readline(MAX_BODY + 2):
        number += 1
        yield number, line
        while not line.endswith(b"\n") and (line := source.readline(MAX_BODY)):
            pass


def _progress() -> Progress:
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    return Progress(*columns, console=err(), transient=True, disable=not sys.stderr.isatty())


def _tell(summary: Summary, json: bool) -> None:
    if json:
        errors = [error._asdict() for error in summary.errors]
        return emit_json({"published": summary.published, "refused": summary.refused, "errors": errors})
    if summary.errors:
        table = Table("Line", "Field", "Why it was refused", box=None, header_style="bold")
        for error in summary.errors[:SHOWN]:
            table.add_row(f"{error.line:,}", error.field or "(whole event)", error.reason)
        out().print(table)
        if summary.refused > SHOWN:
            out().print(f"… and {summary.refused - SHOWN:,} more; --json tells the first {KEPT:,}.")
    return out().print(f"{summary.published:,} published, {summary.refused:,} refused.")
