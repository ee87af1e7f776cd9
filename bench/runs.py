"""One throughput run each of the raw limit and of the detector, in processes of their own."""

import asyncio
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from bench.fill import ends
from bench.servers import Servers
from shared.events import topics

ROOT = Path(__file__).parents[1]
POLL_SECONDS = 0.02
STALL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took. `cpu_us` is microseconds of processor time per event: ours, PostgreSQL's, Kafka's."""

    events: int
    seconds: float
    cpu_us: tuple[float, float, float]
    state_bytes: float
    peak_mb: float = 0.0

    @property
    def rate(self) -> float:
        return self.events / self.seconds


async def raw_limit(servers: Servers) -> Run:
    """The whole backlog by the bare loop. Raises RuntimeError when it failed."""
    database = servers.database("raw")
    before = servers.cpu_seconds()
    process = await _start("bench.raw", servers.kafka.bootstrap, database)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the raw limit ended with {process.returncode}")
    found = json.loads(out)
    cpu = _per_event(found["cpu_seconds"], before, servers.cpu_seconds(), found["events"])
    return Run(found["events"], found["seconds"], cpu, found["state_bytes"])


class Detecting:
    """The detector at work as a process, seen from outside: by its database and its topic."""

    def __init__(self, servers: Servers, database: str, process: Process) -> None:
        self.servers = servers
        self.database = database
        self.process = process
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            said: dict[str, float] = json.loads(line)
            if "first" in said:
                self.first = said
            else:
                self.last = said

    async def applied(self, until: int, incidents: int) -> float:
        """Wait until the input is applied up to the sum of offsets `until` and the topic of incidents ends at the sum
        `incidents`; returns the monotonic second. Raises RuntimeError where nothing moves for two minutes."""
        connection = await asyncpg.connect(self.database.replace("postgresql+asyncpg", "postgresql"))
        progress, moved = -1, time.monotonic()
        try:
            while True:
                done = await connection.fetchval("SELECT coalesce(sum(next), 0)::bigint FROM detector.offsets")
                now = time.monotonic()
                if done >= until:
                    told = sum((await ends(self.servers, topics.INCIDENTS)).values())
                    if told >= incidents:
                        return now if progress < done else time.monotonic()
                    done += told
                if done > progress:
                    progress, moved = done, now
                elif now - moved > STALL_SECONDS or self.process.returncode is not None:
                    raise RuntimeError(f"the detector stands still at {done:,} of {until:,} events")
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await connection.close()

    async def stop(self) -> None:
        """An orderly end; afterwards `last` holds its peak memory."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(self.process.wait(), 30)
        await self._reading


@asynccontextmanager
async def detecting(servers: Servers, database: str) -> AsyncIterator[Detecting]:
    """The detector, started, and stopped at the block's end."""
    detector = Detecting(servers, database, await _start("bench.detector", servers.bus_url, database))
    try:
        yield detector
    finally:
        await detector.stop()


async def throughput(servers: Servers, database: str, incidents: int) -> Run:
    """The whole backlog by the detector into `database`, up to the last incident on its topic. Raises RuntimeError
    where it found other than `incidents` incidents."""
    inputs = sum((await ends(servers)).values())
    told = sum((await ends(servers, topics.INCIDENTS)).values())
    before = servers.cpu_seconds()
    async with detecting(servers, database) as detector:
        done = await detector.applied(inputs, told + incidents)
        own = psutil.Process(detector.process.pid).cpu_times()
        after = servers.cpu_seconds()
        await asyncio.sleep(0.5)
        more = sum((await ends(servers, topics.INCIDENTS)).values()) - told
        if more != incidents:
            raise RuntimeError(f"the detector told {more} incidents, the stream holds {incidents}")
    cpu = _per_event(own.user + own.system - detector.first["cpu_seconds"], before, after, inputs)
    size = float(servers.postgres.psql("SELECT avg(length(state)) FROM detector.orders", database.rsplit("/", 1)[1]))
    return Run(inputs, done - detector.first["first"], cpu, size, detector.last["peak_mb"])


def _per_event(
    own: float, before: tuple[float, float], after: tuple[float, float], events: int
) -> tuple[float, float, float]:
    postgres, kafka = (end - begin for begin, end in zip(before, after, strict=True))
    ours, theirs, broker = (round(seconds / events * 1e6, 2) for seconds in (own, max(postgres, 0.0), kafka))
    return ours, theirs, broker


async def _start(module: str, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-m", module, *arguments, cwd=ROOT, stdout=PIPE)
