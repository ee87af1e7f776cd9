"""Members in processes of their own on one group and one database, and the test's own view of both."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from shared.bus import connect
from shared.bus.port import Bus, Message
from shared.store import offsets
from shared.store.database import Database
from tests.faults.invariants import audit
from tests.faults.lives import READ_AT
from tests.faults.member import Spec
from tests.support.running import eventually, prepare_topics

END_SECONDS = 60.0


class Member:
    """One process of tests.faults.member."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.lines: list[str] = []
        self._log = log
        self._reading = asyncio.create_task(self._read())

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    async def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        if not self.ended:
            self.process.stdin.write(f"{line}\n".encode())
            await self.process.stdin.drain()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def reached(self, point: str) -> None:
        async def there() -> bool:
            if self.ended and f"at {point}" not in self.lines:
                raise AssertionError(f"it ended before {point}:\n{self.log()}")
            return f"at {point}" in self.lines

        await eventually(there, f"it never came to {point}")

    async def end(self) -> int:
        """In good order; the exit code."""
        await self.tell("stop")
        return await self.gone()

    async def gone(self) -> int:
        async with asyncio.timeout(END_SECONDS):
            code = await self.process.wait()
            await self._reading
        return code

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-6000:]

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip("\n"))


@dataclass
class Fleet:
    """`bus` and `database` are the test's own; members have theirs."""

    bus: Bus
    database: Database
    spec: Spec
    folder: Path
    now: datetime = READ_AT
    members: list[Member] = field(default_factory=list)
    accept_storms: bool = True

    async def start(self, **changes: Any) -> Member:
        spec = replace(self.spec, now=self.now.isoformat(), **changes)
        log = self.folder / f"member-{len(self.members)}.log"
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.faults.member",
                spec.dump(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
                cwd=Path(__file__).parents[2],
                env=os.environ,
            )
        self.members.append(Member(process, log))
        return self.members[-1]

    async def publish(self, messages: list[Message]) -> None:
        producer = self.bus.producer()
        await producer.start()
        await producer.send(messages)
        await producer.stop()

    async def clock(self, instant: datetime) -> None:
        self.now = instant
        for member in self.members:
            await member.tell(f"clock {instant.isoformat()}")

    async def done(self) -> bool:
        """All is applied and said that there is, up to the members' present. Lets storms pass where asked to."""
        admin = self.bus.admin()
        try:
            ends = await admin.bounds(await admin.partitions(self.spec.topics))
        finally:
            await admin.close()
        async with self.database.transaction() as connection:
            stored = await offsets.positions(connection, "detector")
            for partition, position in stored.items():
                if self.accept_storms and position.halted and "storm" in position.halted:
                    await offsets.resume(connection, "detector", partition, accept_until=ends[partition].end)
            mark = await offsets.watermark(connection, "detector", self.spec.topics)
            left = (
                await connection.execute(
                    text(
                        "SELECT (SELECT count(*) FROM detector.outbox),"
                        " (SELECT count(*) FROM detector.timers WHERE due_at <= :now)"
                    ),
                    {"now": self.now},
                )
            ).one()
        read = all(p in stored and (stored[p].next or 0) == bounds.end for p, bounds in ends.items())
        return read and mark is not None and mark >= self.now and tuple(left) == (0, 0)

    async def finished(self) -> None:
        try:
            await eventually(self.done, "the work was not finished")
        except TimeoutError:
            raise AssertionError("not finished; the last member said:\n" + self.members[-1].log()) from None

    async def finished_or_gone(self, member: Member) -> None:
        async def either() -> bool:
            return member.ended or await self.done()

        await eventually(either, "neither finished nor dead")


@asynccontextmanager
async def a_fleet(
    url: str, database_url: str, unique: str, partitions: int = 2, **changes: Any
) -> AsyncIterator[Fleet]:
    """Topics `orders-…` and `tracking-…`, an audited database, no member yet. Kills what is left of them at the end."""
    database = Database(database_url, pool_size=4)
    bus = connect(url, database.engine)
    topics = (f"orders-{unique}", f"tracking-{unique}")
    await prepare_topics(bus, *topics, partitions=partitions)
    await audit(database)
    spec = Spec(url, database_url, topics, READ_AT.isoformat(), **changes)
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(bus, database, spec, Path(folder))
        try:
            yield fleet
        finally:
            for member in fleet.members:
                if not member.ended:
                    member.signal(signal.SIGCONT)
                    member.signal(signal.SIGKILL)
                await member.gone()
            await bus.close()
            await database.close()
