"""Every place where the worker touches the world, by name, and seams that die there.

A trap goes off by itself at the n-th pass of one of `POINTS`, in the worker's own process: with SIGKILL, as a crash
would, or with SIGSTOP, as a paused machine would. The seams stay real; they only tell the trap where they are.
"""

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.bus.port import Bus, Consumer, Listener, Message, Partition, Producer, Record
from shared.errors import Retry
from shared.store.database import Database

WRITES: Final = (
    "BatchRunner._transaction",
    "PartitionLoop._claim",
    "PartitionLoop._write_halt",
    "Sweeper._slice",
    "Worker._expect_partitions",
    "Worker._observe_ends",
    "Worker.assigned",
)
"""Who commits a change to the database."""

READS: Final = (
    "PartitionLoop._await_resume",
    "PartitionLoop._begin",
    "Sweeper.sweep",
    "Worker.next_due",
    "Worker.settled",
)
"""Who opens a transaction and only looks: a crash there is the same as one right before."""

STUBS: Final = "BatchRunner._prepare"
"""Commits empty rows after a race, which nobody can bring about to order: what a crash there leaves behind is laid out
by a test instead."""

LETTERS: Final = "BatchRunner._transaction with dead letters"

POINTS: Final = (
    *(f"{site}: {when} commit" for site in (*WRITES, LETTERS) for when in ("before", "after")),
    "PartitionLoop._step: after fetch",
    "Relay._send_round: before send",
    "Relay._send_round: after send",
    "Relay._send_round: after delete",
    "Worker._commit: before commit",
    "Worker._commit: after commit",
)
"""Every point at which a crash is tried. The commit in `Worker._commit` is the group's, on the bus."""

_SENT: Final = re.compile(r"DELETE FROM \w+\.outbox")
_OURS: Final = tuple(str(Path(__file__).parents[2] / folder) for folder in ("shared", "services"))


class Trap:
    """Counts the passes of every point; at the `nth` of `point` it sends `deadly` to its own process. In the test's own
    process, `at_point` is called instead, once, for the point that it names."""

    def __init__(self, point: str = "", nth: int = 1, deadly: int = signal.SIGKILL) -> None:
        self.point = point
        self.passes: Counter[str] = Counter()
        self.at_point: tuple[str, Callable[[], None]] | None = None
        self._nth = nth
        self._deadly = deadly

    def at(self, point: str) -> None:
        self.passes[point] += 1
        if self.at_point is not None and self.at_point[0] == point:
            act, self.at_point = self.at_point[1], None
            act()
        if point == self.point and self.passes[point] == self._nth:
            os.write(1, f"at {point}\n".encode())
            os.kill(os.getpid(), self._deadly)


class TrappedDatabase(Database):
    """A real one. `slow` holds up the commits of a site by seconds."""

    def __init__(self, url: str, trap: Trap, slow: Mapping[str, float] | None = None, pool_size: int = 16) -> None:
        super().__init__(url, pool_size)
        self._trap = trap
        self._slow = slow or {}

        @event.listens_for(self.engine.sync_engine, "after_cursor_execute")
        def _executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if _SENT.match(statement):
                trap.at("Relay._send_round: after delete")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        site = caller(sys._getframe(1))
        letters = False
        async with super().transaction() as connection:
            yield connection
            await asyncio.sleep(self._slow.get(site, 0.0))
            letters = self._trap.point.startswith(LETTERS) and await _has_letters(connection)
            self._passes(site, "before", letters)
        self._passes(site, "after", letters)

    def _passes(self, site: str, when: str, letters: bool) -> None:
        if site in READS:
            self._trap.passes[site] += when == "after"
            return
        self._trap.at(f"{site}: {when} commit")
        if letters:
            self._trap.at(f"{LETTERS}: {when} commit")


async def _has_letters(connection: AsyncConnection) -> bool:
    found = "SELECT EXISTS (SELECT FROM detector.dead_letters WHERE xmin = pg_current_xact_id_if_assigned()::xid)"
    return bool(await connection.scalar(text(found)))


def caller(frame: FrameType | None) -> str:
    """The function of ours that opened a transaction, whatever lies between."""
    while frame is not None and not (
        frame.f_code.co_filename.startswith(_OURS) and not frame.f_code.co_filename.endswith("database.py")
    ):
        frame = frame.f_back
    return "nobody" if frame is None else frame.f_code.co_qualname


class TrappedProducer:
    def __init__(self, real: Producer, trap: Trap) -> None:
        self._real = real
        self._trap = trap

    async def start(self) -> None:
        await self._real.start()

    async def stop(self) -> None:
        await self._real.stop()

    async def send(self, messages: Sequence[Message]) -> None:
        self._trap.at("Relay._send_round: before send")
        await self._real.send(messages)
        self._trap.at("Relay._send_round: after send")


class TrappedConsumer:
    def __init__(self, real: Consumer, trap: Trap) -> None:
        self._real = real
        self._trap = trap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def fetch(self, partition: Partition, max_records: int, timeout: float) -> Sequence[Record]:
        records = await self._real.fetch(partition, max_records, timeout)
        if records:
            self._trap.at("PartitionLoop._step: after fetch")
        return records

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        self._trap.at("Worker._commit: before commit")
        try:
            await self._real.commit(offsets)
        except Retry:
            self._trap.passes["Worker._commit: failed"] += 1
            raise
        self._trap.at("Worker._commit: after commit")


class TrappedBus:
    """A real one whose members tell the trap what they do."""

    def __init__(self, real: Bus, trap: Trap) -> None:
        self._real = real
        self._trap = trap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> Any:
        return TrappedConsumer(self._real.consumer(group, topics, listener), self._trap)

    def producer(self) -> Any:
        return TrappedProducer(self._real.producer(), self._trap)
