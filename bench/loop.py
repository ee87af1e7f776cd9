"""From a late order to the SMS handed over: all four services, each a process, with Kafka, PostgreSQL and a provider.

Two figures: how long it takes at a steady pace, and how many incidents a second pass when all are waiting. The store is
live, without quiet hours, caps and wave pause; each order has a customer of its own."""

import asyncio
import base64
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import asyncpg
import psutil

from bench.detector import SECRET
from bench.fill import ends
from bench.report import Report, percentile
from bench.runs import ROOT
from bench.servers import Servers
from shared.bus import connect
from shared.bus.port import Message, Partition
from shared.events import topics
from shared.events.contacts import Recipient, RecipientKind
from shared.events.envelope import event, to_message
from shared.events.incidents import Scenario
from shared.events.orders import Customer, Line, OrderPaid, OrderShipEstimated
from shared.events.stores import Caps, Important, Mode, StoreConfigured, Wave
from shared.store.migrate import upgrade_all

STORE: Final = "tm-flagship"
WARM_UP_SECONDS: Final = 3.0
STALL_SECONDS: Final = 60.0
TICK_SECONDS: Final = 0.01
POLL_SECONDS: Final = 0.05
MANY: Final = 10**9
PRICE: Final = Decimal("129.00")


@dataclass(slots=True)
class Gateway:
    """The provider: when the first request for each number came, and how many were for a number already written to."""

    process: Process
    port: int
    came: dict[str, float] = field(default_factory=dict)
    repeated: int = 0

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            number, at = line.decode().split()
            self.repeated += number in self.came
            self.came.setdefault(number, float(at))

    async def until(self, phones: Sequence[str]) -> None:
        """All of these have been written to, once. Raises RuntimeError where nothing moves for a minute, or where one
        was written to twice."""
        last, moved = -1, time.monotonic()
        while (done := sum(phone in self.came for phone in phones)) < len(phones):
            if done > last:
                last, moved = done, time.monotonic()
            elif time.monotonic() - moved > STALL_SECONDS:
                raise RuntimeError(f"{done} of {len(phones)} SMS were handed over")
            await asyncio.sleep(POLL_SECONDS)
        if self.repeated:
            raise RuntimeError(f"{self.repeated} SMS were handed over twice")


class Orders:
    """Late orders with ids and phones that no other has."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> list[tuple[str, str]]:
        """So many new (order id, phone)."""
        first, self._next = self._next, self._next + count
        return [(f"{6 * 10**17 + n}", f"139{n:08d}") for n in range(first, first + count)]


def paid(order_id: str, phone: str, now: datetime) -> Message:
    data = OrderPaid(
        order_id=order_id,
        store_id=STORE,
        customer=Customer(
            id=f"c{order_id}", nickname="小鱼", recipients=(Recipient(kind=RecipientKind.PHONE, value=phone),)
        ),
        lines=(Line(sku="SKU-1", name="羽绒服 女 中长款", variant="黑色 M", quantity=1, unit_price=PRICE),),
        total=PRICE,
        currency="CNY",
        paid_at=now - timedelta(hours=1),
        promise_ship_by=now + timedelta(hours=48),
    )
    return to_message(event(data, id=f"{order_id}-paid", source="shop/oms", time=now))


def late(order_id: str, now: datetime) -> Message:
    data = OrderShipEstimated(order_id=order_id, ship_at=now + timedelta(hours=78), cause="warehouse_backlog")
    return to_message(event(data, id=f"{order_id}-late", source="shop/oms", time=now))


def store(now: datetime) -> Message:
    data = StoreConfigured(
        store_id=STORE,
        name="羽暖旗舰店",
        quiet_hours=None,
        modes={Scenario.SHIPPING_DELAY: Mode.LIVE},
        live_from=now - timedelta(days=30),
        caps=Caps(messages=None, money=None, first_days=None),
        wave=Wave(incidents=MANY),
        important=Important(total=Decimal(99_999_999), calls_a_day=0),
    )
    return to_message(event(data, id="bench-store", source="headsup/bench", time=now))


class Loop:
    """The servers with their topics and database, and the provider."""

    def __init__(self, servers: Servers, database: str, gateway: Gateway) -> None:
        self.servers = servers
        self.database = database
        self.gateway = gateway
        self.orders = Orders()
        self._environment = {
            **os.environ,
            "HEADSUP_BUS": servers.bus_url,
            "HEADSUP_DATABASE": database,
            "HEADSUP_SECRET": base64.b64encode(SECRET).decode(),
            "HEADSUP_API_KEY": "a-key-for-the-bench-only",
            "HEADSUP_PORT": "0",
            "HEADSUP_LOG_LEVEL": "WARNING",
            "HEADSUP_KANNEL__URL": f"http://127.0.0.1:{gateway.port}",
            "HEADSUP_KANNEL__USERNAME": "bench",
            "HEADSUP_KANNEL__PASSWORD": "bench",
            "HEADSUP_KANNEL__SENDER": "10690001",
            "HEADSUP_KANNEL__CALLBACK_BASE": "http://127.0.0.1:9",
            "HEADSUP_KANNEL__HOOK_SECRET": "a-secret-of-the-bench",
        }

    async def publish(self, messages: Sequence[Message]) -> None:
        producer = connect(self.servers.bus_url).producer()
        await producer.start()
        try:
            for begin in range(0, len(messages), 2000):
                await producer.send(messages[begin : begin + 2000])
        finally:
            await producer.stop()

    @asynccontextmanager
    async def services(self) -> AsyncIterator[dict[str, psutil.Process]]:
        """All four, each a process, ended in order."""
        running: dict[str, Process] = {}
        try:
            for name in topics.SERVICES:
                running[name] = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "services.cli",
                    "run",
                    name,
                    cwd=ROOT,
                    env=self._environment,
                    stdout=sys.stderr,
                )
            yield {name: psutil.Process(process.pid) for name, process in running.items()}
        finally:
            for process in running.values():
                with suppress(ProcessLookupError):
                    process.terminate()
            await asyncio.gather(*(asyncio.wait_for(process.wait(), 30) for process in running.values()))

    async def at_rest(self) -> None:
        """Every service has read every topic of its own to the end. Raises RuntimeError where that takes too long."""
        connection = await asyncpg.connect(self.database.replace("postgresql+asyncpg", "postgresql"))
        until = time.monotonic() + STALL_SECONDS
        try:
            while True:
                logs = await ends(self.servers, *(spec.name for spec in topics.TOPICS))
                if all([await self._read(connection, schema, logs) for schema in topics.SERVICES]):
                    return
                if time.monotonic() > until:
                    raise RuntimeError("the services do not come to rest")
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await connection.close()

    async def _read(self, connection: asyncpg.Connection, schema: str, logs: Mapping[Partition, int]) -> bool:
        rows = await connection.fetch(f"SELECT topic, partition, coalesce(next, 0) AS next FROM {schema}.offsets")
        return bool(rows) and all(row["next"] >= logs[Partition(row["topic"], row["partition"])] for row in rows)


@asynccontextmanager
async def prepared(servers: Servers) -> AsyncIterator[Loop]:
    """Topics, an empty database, the store's settings, and the provider."""
    database = servers.postgres.create_database("loop")
    await upgrade_all(database)
    admin = connect(servers.bus_url).admin()
    try:
        await admin.apply(topics.TOPICS)
    finally:
        await admin.close()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.gateway", cwd=ROOT, stdout=PIPE)
    assert process.stdout is not None
    gateway = Gateway(process, int(await process.stdout.readline()))
    reading = asyncio.create_task(gateway.read())
    loop = Loop(servers, database, gateway)
    try:
        await loop.publish([store(datetime.now(UTC))])
        yield loop
    finally:
        process.terminate()
        await process.wait()
        await reading


async def sms_latency(loop: Loop, rate: float, seconds: float, report: Report) -> None:
    """From publishing the estimate that makes an order late to the request's arrival at the provider."""
    report.progress(f"event to SMS at {rate:,.0f} incidents/s for {seconds:.0f} s")
    orders = loop.orders.take(int(rate * seconds))
    now = datetime.now(UTC)
    await loop.publish([paid(order_id, phone, now) for order_id, phone in orders])
    async with loop.services():
        await loop.at_rest()
        await asyncio.sleep(WARM_UP_SECONDS)
        sent, begun = await _paced(loop, orders, rate)
        took = time.monotonic() - begun
        await loop.gateway.until([phone for _, phone in orders])
    if took > seconds * 1.05:
        raise RuntimeError(f"the pace of {rate:,.0f} incidents/s was not held: {took:.1f} s instead of {seconds:.1f} s")
    found = [loop.gateway.came[phone] - at for phone, at in sent.items() if at - begun > WARM_UP_SECONDS]
    detail = {"incidents_per_second": rate, "incidents": len(found), "max_ms": round(max(found) * 1000), **_around()}
    for percent in (50, 99):
        report.figure(f"sms_latency_p{percent}", percentile(found, percent) * 1000, "ms", **detail)


async def _paced(loop: Loop, orders: Sequence[tuple[str, str]], rate: float) -> tuple[dict[str, float], float]:
    """Publish each order's estimate in its turn: the second of each, by phone, and the first of all."""
    sent: dict[str, float] = {}
    producer = connect(loop.servers.bus_url).producer()
    await producer.start()
    begun, done = time.monotonic(), 0
    try:
        while done < len(orders):
            due = min(int((time.monotonic() - begun) * rate), len(orders))
            if due > done:
                now, at = datetime.now(UTC), time.monotonic()
                sent |= {phone: at for _, phone in orders[done:due]}
                await producer.send([late(order_id, now) for order_id, _ in orders[done:due]])
                done = due
            await asyncio.sleep(TICK_SECONDS)
    finally:
        await producer.stop()
    return sent, begun


async def full_load(loop: Loop, count: int, report: Report) -> None:
    """So many late orders are waiting when the services start: from the first SMS handed over to the last."""
    report.progress(f"{count:,} late orders waiting for all four services")
    orders = loop.orders.take(count)
    now = datetime.now(UTC)
    await loop.publish([paid(order_id, phone, now) for order_id, phone in orders])
    await loop.publish([late(order_id, now) for order_id, _ in orders])
    before = loop.servers.cpu_seconds()
    async with loop.services() as processes:
        await loop.gateway.until([phone for _, phone in orders])
        own = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
        after = loop.servers.cpu_seconds()
    own |= dict(
        zip(("postgresql", "kafka"), (end - begin for begin, end in zip(before, after, strict=True)), strict=True)
    )
    came = [loop.gateway.came[phone] for _, phone in orders]
    report.figure(
        "sms_full_load",
        (count - 1) / (max(came) - min(came)),
        "incidents/s",
        incidents=count,
        cpu_ms_per_incident={name: round(seconds / count * 1000, 2) for name, seconds in own.items()},
        with_start_up=True,
        **_around(),
    )


def _around() -> dict[str, object]:
    return {
        "processes": [*topics.SERVICES],
        "partitions": topics.PARTITIONS,
        "load_1min": round(psutil.getloadavg()[0], 2),
        "cores": psutil.cpu_count(),
    }


async def bench_loop(servers: Servers, rate: float, seconds: float, backlog: int, report: Report) -> None:
    """Both figures."""
    async with prepared(servers) as loop:
        await sms_latency(loop, rate, seconds, report)
        await full_load(loop, backlog, report)
