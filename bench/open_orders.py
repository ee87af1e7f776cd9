"""Many open orders: put there before a run, and the timers' sweep over them."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import asyncpg
import msgspec

from bench.detector import SECRET
from bench.report import Report
from bench.servers import INPUTS, Servers
from bench.stream import SOURCE, Order, paid
from services.detector.handlers import Detector
from services.detector.listing import PostgresFeeds, PostgresListing
from services.detector.postgres import PostgresOrders
from services.detector.rules.facts import OrderState, fold
from services.detector.rules.shipping_delay import Policy, settle
from shared.bus import connect
from shared.clock import SystemClock
from shared.events.envelope import event
from shared.events.orders import OrderPaid, OrderShipEstimated
from shared.seal import Sealer
from shared.store.database import Database
from shared.store.outbox import Relay
from shared.telemetry import Metrics
from shared.worker import WorkerSettings
from shared.worker.batch import Shell
from shared.worker.sweep import Sweeper

CHUNK: Final = 50_000
SOON: Final = "soon"
"""Orders whose id ends so are past their warning: once their timer is due, they open an incident."""


async def preload(servers: Servers, database: str, count: int, soon: int, report: Report) -> None:
    """Copy `count` open orders, paid and estimated, into the detector's tables, with a timer each in the far future;
    then `soon` more that are late as soon as somebody looks."""
    connection = await asyncpg.connect(database.replace("postgresql+asyncpg", "postgresql"))
    rows = _rows(count, soon)
    done = 0
    try:
        while chunk := list(islice(rows, CHUNK)):
            await connection.copy_records_to_table(
                "orders",
                schema_name="detector",
                columns=["order_id", "state", "payment"],
                records=[row[:3] for row in chunk],
            )
            timers = [(row[0], row[3]) for row in chunk]
            await connection.copy_records_to_table(
                "timers", schema_name="detector", columns=["key", "due_at"], records=timers
            )
            done += len(chunk)
            report.progress(f"open orders: {done:,} of {count + soon:,}", often=True)
        await connection.execute("VACUUM ANALYZE detector.orders")
        await connection.execute("VACUUM ANALYZE detector.timers")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _rows(count: int, soon: int) -> Iterator[tuple[str, bytes, bytes, datetime]]:
    """Each order's id, state, payment and timer; ids are drawn, everything else is the same for all."""
    rng = random.Random(7)
    now = datetime.now(UTC)
    for number, promise, suffix in ((count, now + timedelta(days=30), ""), (soon, now + timedelta(hours=6), SOON)):
        placeholder = "1" + "0" * 17
        order = Order(placeholder, False, now - timedelta(days=1), promise, 0, 2)
        state, payment = _state(order, now)
        parts = [text.split(placeholder.encode()) for text in (state, payment)]
        for _ in range(number):
            order_id = f"{rng.randrange(10**17, 10**18)}{suffix}"
            named = order_id.encode()
            yield order_id, named.join(parts[0]), named.join(parts[1]), now + timedelta(days=29)


def _state(order: Order, now: datetime) -> tuple[bytes, bytes]:
    """What the detector would keep of this order, paid and estimated."""
    payment = OrderPaid.model_validate_json(paid(order)[1])
    kept = Sealer(SECRET).sealed(payment)
    state = OrderState()
    fold(state, event(payment, id=f"{order.order_id}-0", source=SOURCE, time=order.paid_at))
    estimate = OrderShipEstimated(order_id=order.order_id, ship_at=order.promise - timedelta(hours=20))
    if order.promise - now > timedelta(days=1):
        said_at = order.paid_at + timedelta(hours=1)
        fold(state, event(estimate, id=f"{order.order_id}-1", source=SOURCE, time=said_at))
    # The timer in the state is the rules' own; the one in the table is set apart from it, so that none fires early.
    state.look_at = settle(state, order.paid_at, Policy()).look_at
    return msgspec.json.encode(state), kept.model_dump_json(exclude_none=True).encode()


class Sweeping:
    """The detector's sweeper by itself, in this process, on a database whose input is applied."""

    def __init__(self, servers: Servers, database: str) -> None:
        self._database = Database(database)
        sealer, metrics = Sealer(SECRET), Metrics().of("detector")
        relay = Relay(self._database, "detector", connect(servers.bus_url).producer())
        settings = WorkerSettings("detector", INPUTS)
        detector = Detector(PostgresOrders(), PostgresListing(), PostgresFeeds(), sealer, Policy())
        shell = Shell(settings, detector, self._database, sealer, SystemClock(), relay, metrics)
        self._sweeper = Sweeper(shell)
        self._servers, self._name = servers, database.rsplit("/", 1)[1]

    async def seconds(self, due: int, opens: bool) -> float:
        """Make `due` timers due, then sweep once."""
        which = f"key LIKE '%{SOON}'" if opens else f"key NOT LIKE '%{SOON}'"
        self._servers.postgres.psql(
            "UPDATE detector.timers SET due_at = now() - interval '1 minute'"
            " WHERE key IN (SELECT key FROM detector.timers"
            f" WHERE {which} AND due_at > now() + interval '1 day' LIMIT {due})",
            self._name,
        )
        self._servers.postgres.psql("UPDATE detector.offsets SET applied_until = now()", self._name)
        self._servers.postgres.psql("CHECKPOINT", self._name)
        started = time.perf_counter()
        await self._sweeper.sweep()
        took = time.perf_counter() - started
        left = int(
            self._servers.postgres.psql("SELECT count(*) FROM detector.timers WHERE due_at <= now()", self._name)
        )
        if left:
            raise RuntimeError(f"the sweep left {left} timers that were due")
        return took

    async def timers(self) -> int:
        """How many there are, due or not."""
        return int(self._servers.postgres.psql("SELECT count(*) FROM detector.timers", self._name))

    async def waiting(self) -> int:
        """How many messages the sweeps have put into the outbox; no relay runs here."""
        return int(self._servers.postgres.psql("SELECT count(*) FROM detector.outbox", self._name))

    async def close(self) -> None:
        await self._database.close()
