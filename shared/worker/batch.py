"""One batch of one partition, in one transaction: decode, apply, dead-letter, advance the offset."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from shared.bus.port import Partition, Record
from shared.clock import Clock
from shared.errors import AskPerson, Halt, HeadsupError, LostOwnership, Reject, Retry
from shared.events.envelope import Event, decode
from shared.seal import Sealer
from shared.store import deadletters, offsets
from shared.store.database import Database, about_the_data, described
from shared.store.deadletters import Refused
from shared.store.offsets import Position
from shared.store.outbox import Relay
from shared.store.unit import Raced, UnitOfWork
from shared.telemetry import Metrics, where
from shared.worker.handler import Background, Handler, WorkerSettings
from shared.worker.storm import Storm

log = structlog.get_logger(__name__)

TOO_OLD = "too_old"
TOO_NEW = "too_new"
STORM = (
    "a storm of dead letters: a producer broke, or we did. Mend it, then `headsup resume`"
    " (with --accept to let the rest of the storm pass into the dead letters)"
)


@dataclass(slots=True)
class Watermark:
    """The service's watermark as the last sweep read it. The true one only rises, so this one is never too late."""

    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Shell:
    """What a worker's parts share: the wiring of one service."""

    settings: WorkerSettings
    handler: Handler
    database: Database
    sealer: Sealer
    clock: Clock
    relay: Relay
    metrics: Metrics
    background: Sequence[Background] = ()
    watermark: Watermark = field(default_factory=Watermark)

    def committed(self, emitted: bool) -> None:
        """A transaction was committed: whoever works on it looks now."""
        if emitted:
            self.relay.nudge()
        for work in self.background:
            work.nudge()


@dataclass(slots=True)
class Decoded:
    """A batch after decoding. `next_offset` is where the batch ends: after its last record, or, when a storm cut it
    short, after the record that made it one (`storm` then says so)."""

    events: list[tuple[Record, Event[Any]]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    next_offset: int = 0
    storm: bool = False


def decode_batch(
    records: Sequence[Record], storm: Storm, accepted_until: int, oldest: datetime, newest: datetime
) -> Decoded:
    """Decode in order; the bad ones are set aside with their reason, their neighbours stay. Events from before `oldest`
    are `too_old`, those from after `newest` are `too_new`. Refusals below `accepted_until` do not count towards a
    storm."""
    batch = Decoded()
    for record in records:
        batch.next_offset = record.offset + 1
        try:
            event = decode(record)
            if event.time > newest or (event.time < oldest and not event.data.LASTING):
                raise _out_of_time(event.time, oldest, newest)
        except Reject as error:
            batch.refused.append(Refused.because(record, error.reason, error.field))
            if record.offset >= accepted_until and storm.refused():
                batch.storm = True
                break
        else:
            storm.accepted()
            batch.events.append((record, event))
    return batch


def _out_of_time(time: datetime, oldest: datetime, newest: datetime) -> Reject:
    if time < oldest:
        return Reject(f"{TOO_OLD}: it happened before the state horizon ({oldest:%Y-%m-%d})", "time")
    return Reject(f"{TOO_NEW}: it says that it happens later than {newest:%Y-%m-%d %H:%M} UTC; retry it then", "time")


class BatchRunner:
    """Applies the batches of one partition and knows its position. Owned by one partition loop."""

    def __init__(self, shell: Shell, partition: Partition, position: Position) -> None:
        self._shell = shell
        self._partition = partition
        self.position = position
        self._accepted_until = position.accepted_until
        self._storm = Storm()

    async def run(self, records: Sequence[Record]) -> None:
        """Apply `records` (not empty, contiguous from the position) and advance to their end.

        Raises `Retry` with nothing known about the commit, `LostOwnership` when another owner moved the partition,
        `Halt` after a storm, with everything up to its last record committed, and what the database says about itself
        as it is: no input is to blame for that."""
        shell, settings = self._shell, self._shell.settings
        started = time.perf_counter()
        storm = self._storm.copy()
        now = shell.clock.now()
        oldest, newest = now - settings.horizon, now + settings.ahead
        batch = decode_batch(records, storm, self._accepted_until, oldest, newest)
        shell.metrics.batch_seconds.labels("decode").observe(time.perf_counter() - started)
        try:
            await self._apply(batch.events, batch.refused, batch.next_offset)
        except Exception as error:
            if not blames_input(error):
                raise
            await self._find_culprit(batch, error)
        else:
            self._storm = storm
        if batch.storm:
            raise Halt(STORM)

    async def _find_culprit(self, batch: Decoded, error: Exception) -> None:
        """A handler failed on this batch: apply its halves apart, down to the one event that fails by itself."""
        log.warning("batch_halved", partition=str(self._partition), events=len(batch.events), error=why(error))
        pieces = [batch.events]
        refused = batch.refused
        while pieces:
            events = pieces.pop(0)
            next_offset = pieces[0][0][0].offset if pieces else batch.next_offset
            here = [r for r in refused if r.record.offset < next_offset]
            try:
                await self._apply(events, here, next_offset)
            except Exception as again:
                if not blames_input(again):
                    raise
                if len(events) > 1:
                    half = len(events) // 2
                    pieces[:0] = [events[:half], events[half:]]
                    continue
                here += [self._refusal(record, again) for record, _ in events]
                events = []
                await self._set_aside(here, next_offset)
            self._count(events, here)
            refused = [r for r in refused if r.record.offset >= next_offset]

    async def _set_aside(self, refused: Sequence[Refused], next_offset: int) -> None:
        """Nothing but dead letters is left to store. Where not even that works, trying again would not either."""
        try:
            await self._apply([], refused, next_offset)
        except Exception as error:
            if not blames_input(error):
                raise
            raise Halt(
                f"a record before offset {next_offset} can neither be applied nor kept as a dead letter ({why(error)})."
                " This is a defect of ours; once it is mended, `headsup resume`"
            ) from error

    def _count(self, events: Sequence[tuple[Record, Event[Any]]], refused: Sequence[Refused]) -> None:
        """Count what was just committed, in the log's order. Raises `Halt` where that makes a storm."""
        outcomes = [(record.offset, False) for record, _ in events] + [(r.record.offset, True) for r in refused]
        storm = False
        for offset, bad in sorted(outcomes):
            if not bad:
                self._storm.accepted()
            elif offset >= self._accepted_until:
                storm |= self._storm.refused()
        if storm:
            raise Halt(STORM)

    def _refusal(self, record: Record, error: Exception) -> Refused:
        if isinstance(error, Reject):
            return Refused.because(record, error.reason, error.field)
        if isinstance(error, AskPerson):
            return Refused.because(record, error.reason)
        # A defect of ours: the record is kept for a retry after the repair, and the log says where to look.
        log.error(
            "handler_failed", partition=str(self._partition), offset=record.offset, error=why(error), where=where(error)
        )
        return Refused.because(record, f"the {self._shell.settings.schema} failed on it ({why(error)})")

    async def _apply(
        self, events: Sequence[tuple[Record, Event[Any]]], refused: Sequence[Refused], next_offset: int
    ) -> None:
        try:
            await self._transaction(events, refused, next_offset, careful=False)
        except Raced as race:
            await self._prepare(race)
            await self._transaction(events, refused, next_offset, careful=True)

    async def _prepare(self, race: Raced) -> None:
        """Commit what the careful batch locks, by itself: holding it while waiting for other rows could deadlock."""
        if race.prepare is not None:
            async with self._shell.database.transaction() as connection:
                await race.prepare(connection)

    async def _transaction(
        self, events: Sequence[tuple[Record, Event[Any]]], refused: Sequence[Refused], next_offset: int, careful: bool
    ) -> None:
        shell, schema = self._shell, self._shell.settings.schema
        async with shell.database.transaction() as connection:
            unit = UnitOfWork(connection, schema, shell.clock.now(), shell.watermark.at, careful)
            if events:
                await shell.handler.apply(unit, [event for _, event in events])
            if refused:
                for message in await deadletters.add(connection, schema, shell.sealer, refused, unit.now):
                    unit.emit(message)
            with unit.measure("save"):
                await offsets.advance(connection, schema, self._partition, self.position, next_offset)
                await unit.flush()
        self.position = Position(next_offset, self.position.epoch, None, self._accepted_until)
        shell.committed(bool(unit.emitted))
        shell.metrics.applied(self._partition.topic, len(events), unit.spent)
        for letter in refused:
            shell.metrics.dead_letters.labels(letter.record.topic).inc()
            log.warning(
                "dead_letter",
                partition=str(self._partition),
                offset=letter.record.offset,
                field=letter.field,
                reason=letter.reason,
            )


def blames_input(error: Exception) -> bool:
    """Whether leaving out one input may help: not where a dependency is away or broken, or the partition lost."""
    return not isinstance(error, Retry | LostOwnership | Halt) and about_the_data(error)


def why(error: Exception) -> str:
    """The reason of an instruction, of anything else its kind: a message may quote data, and data may hold a phone."""
    return error.reason if isinstance(error, HeadsupError) else described(error)
