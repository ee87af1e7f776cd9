"""The raw limit, a process by itself: read, decode, locked load, upsert, offset. `python -m bench.raw` is run by bench.

Nothing else: no rules, timers, outbox, owners, dead letters or metrics, and asyncpg without a layer on it. It reads the
same topics with the same Kafka settings, decodes with the same decoder, and keeps a row of the detector's size for each
order, so what the detector loses against it is what its guarantees and decisions cost.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.servers import INPUTS, TOPICS
from shared.bus.kafka.client import new_member
from shared.events.envelope import decode
from shared.process import spare_collector
from shared.worker.handler import WorkerSettings

# What the detector's state grows by with each kind of event, in bytes: measured on its rows.
GROWS: Mapping[str, int] = {
    "order.paid.v1": 430,
    "order.ship_estimated.v1": 100,
    "order.shipped.v1": 130,
    "parcel.scanned.v1": 270,
}

SCHEMA = """
CREATE SCHEMA raw;
CREATE TABLE raw.orders (order_id text PRIMARY KEY, state bytea NOT NULL, payment bytea) WITH (fillfactor = 70);
CREATE TABLE raw.offsets (topic text, partition int, next bigint NOT NULL, PRIMARY KEY (topic, partition))
    WITH (fillfactor = 50);
"""
LOAD = "SELECT order_id, state FROM raw.orders WHERE order_id = ANY($1::text[]) ORDER BY order_id FOR UPDATE"
STUBS = "INSERT INTO raw.orders SELECT id, '' FROM unnest($1::text[]) AS u (id) ON CONFLICT DO NOTHING"
INSERT = """
INSERT INTO raw.orders SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[]) ON CONFLICT DO NOTHING
"""
UPDATE = """
UPDATE raw.orders AS o SET state = u.state, payment = coalesce(u.payment, o.payment)
FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS u (id, state, payment) WHERE o.order_id = u.id
"""
ADVANCE = "UPDATE raw.offsets SET next = $3 WHERE topic = $1 AND partition = $2 AND next = $4"


class RacedError(Exception):
    """Somebody inserted one of our new orders first."""


class Loop:
    """One partition: batches of it, one after the other, while the other partitions' transactions run."""

    def __init__(self, client: AIOKafkaConsumer, pool: asyncpg.Pool, tp: TopicPartition, begin: int, end: int) -> None:
        self._client, self._pool, self._tp = client, pool, tp
        self._next, self._end = begin, end
        self.first: tuple[float, float] | None = None

    async def run(self) -> None:
        batch = WorkerSettings("raw", INPUTS).batch_records
        while self._next < self._end:
            found = await self._client.getmany(self._tp, timeout_ms=500, max_records=batch)
            records = found.get(self._tp, ())
            if not records:
                continue
            if self.first is None:
                self.first = (time.monotonic(), time.process_time())
            grown: defaultdict[str, list[bytes]] = defaultdict(list)
            payments: dict[str, bytes] = {}
            for record in records:
                event = decode(record)
                data: Any = event.data
                size = GROWS[event.type]
                grown[data.order_id].append((record.value * (size // len(record.value) + 1))[:size])
                if event.type == "order.paid.v1":
                    payments[data.order_id] = record.value
            after = records[-1].offset + 1
            try:
                await self._commit(grown, payments, after)
            except RacedError:
                # By themselves: a transaction that holds stubs while it waits for other rows can end in a deadlock.
                await self._pool.execute(STUBS, sorted(grown))
                await self._commit(grown, payments, after)
            self._next = after

    async def _commit(self, grown: Mapping[str, Sequence[bytes]], payments: Mapping[str, bytes], after: int) -> None:
        ids = sorted(grown)
        async with self._pool.acquire() as connection, connection.transaction():
            loaded: dict[str, bytes] = dict(await connection.fetch(LOAD, ids))
            states = {i: b"".join((loaded.get(i, b""), *grown[i])) for i in ids}
            new = [i for i in ids if i not in loaded]
            if new:
                done = await connection.execute(INSERT, *_columns(new, states, payments))
                if int(done.rsplit(" ", 1)[1]) < len(new):
                    raise RacedError
            known = [i for i in ids if i in loaded]
            if known:
                await connection.execute(UPDATE, *_columns(known, states, payments))
            await connection.execute(ADVANCE, self._tp.topic, self._tp.partition, after, self._next)
            await connection.execute("SET LOCAL synchronous_commit TO off")


def _columns(ids: Sequence[str], states: Mapping[str, bytes], payments: Mapping[str, bytes]) -> tuple[Any, ...]:
    return ids, [states[i] for i in ids], [payments.get(i) for i in ids]


async def main(servers: str, database: str) -> None:
    client = new_member([servers], "bench.raw", 6000)
    pool = await asyncpg.create_pool(
        database.replace("postgresql+asyncpg", "postgresql"), max_size=16, server_settings={"jit": "off"}
    )
    await client.start()
    try:
        tps = [TopicPartition(spec.name, p) for spec in TOPICS if spec.name in INPUTS for p in range(spec.partitions)]
        client.assign(tps)
        first, end = await client.beginning_offsets(tps), await client.end_offsets(tps)
        await pool.execute(SCHEMA)
        await pool.executemany(
            "INSERT INTO raw.offsets VALUES ($1, $2, $3)", [(tp.topic, tp.partition, first[tp]) for tp in tps]
        )
        for tp in tps:
            client.seek(tp, first[tp])
        loops = [Loop(client, pool, tp, first[tp], end[tp]) for tp in tps]
        await asyncio.gather(*(loop.run() for loop in loops))
        ended, cpu = time.monotonic(), time.process_time()
        began, cpu_before = min(loop.first for loop in loops if loop.first)
        orders, size = await pool.fetchrow("SELECT count(*), avg(length(state))::float8 FROM raw.orders")
        events = sum(end[tp] - first[tp] for tp in tps)
        found = {"events": events, "seconds": ended - began, "cpu_seconds": cpu - cpu_before}
        sys.stdout.write(json.dumps({**found, "orders": orders, "state_bytes": size}) + "\n")
    finally:
        await client.stop()
        await pool.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.raw", description="The bare batch loop; run by the bench.")
    parser.add_argument("servers")
    parser.add_argument("database")
    arguments = parser.parse_args()
    spare_collector()  # as every process of ours does
    uvloop.run(main(arguments.servers, arguments.database))
