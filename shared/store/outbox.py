"""What a transaction wants to say goes into a table with it, and from there to the bus.

Guarantees: a message is sent if and only if its transaction committed; per key in the order of commit; at least once,
with the same event id each time. Why it holds: ids are drawn while the key's row is locked, so for one key id order is
commit order; a key always falls into the same shard; and one relay at a time works on a shard (a session's advisory
lock). The relay never remembers a last id: it sends what is there and deletes what was sent, so a transaction that
commits late, with a lower id, is not skipped.
"""

import asyncio
import contextlib
import json
import zlib
from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.bus.port import Message, Producer, check_sizes
from shared.errors import HeadsupError, Reject, Retry
from shared.store.database import Database

SHARDS = 4
RELAY_ROWS = 1000
POLL_SECONDS = 0.2
"""How long a message may lie when the nudge of its own process is missed (written by another process, or a crash)."""
RETRY_SECONDS = 1.0
IDLE_SECONDS = 60.0
"""A relay that does nothing for this long is frozen: PostgreSQL ends its session, and with it its locks on the shards.
Longer than any send takes."""

log = structlog.get_logger(__name__)


def shard_of(key: bytes | None) -> int:
    return zlib.crc32(key or b"") % SHARDS


async def add(connection: AsyncConnection, schema: str, messages: Sequence[Message], now: datetime) -> None:
    """Write messages inside the caller's transaction, in the order given. Raises `Reject` for one that the bus would
    refuse for its size: in the table it would hold up its shard for ever."""
    check_sizes(messages)
    await connection.execute(
        text(
            f"INSERT INTO {schema}.outbox (shard, topic, key, value, headers, created_at)"
            " SELECT shard, topic, key, value, headers, :now FROM unnest(CAST(:shards AS smallint[]),"
            " CAST(:topics AS text[]), CAST(:keys AS bytea[]), CAST(:values AS bytea[]), CAST(:headers AS text[]))"
            " WITH ORDINALITY AS u (shard, topic, key, value, headers, n) ORDER BY n"
        ),
        {
            "shards": [shard_of(m.key) for m in messages],
            "topics": [m.topic for m in messages],
            "keys": [m.key for m in messages],
            "values": [m.value for m in messages],
            "headers": [json.dumps([(name, value.decode()) for name, value in m.headers]) for m in messages],
            "now": now,
        },
    )


async def depth(connection: AsyncConnection, schema: str) -> tuple[int, datetime | None]:
    """How many messages wait and since when the oldest does: the alert for a relay that stands still."""
    row = (
        await connection.execute(text(f"SELECT count(*) AS n, min(created_at) AS oldest FROM {schema}.outbox"))
    ).one()
    return row.n, row.oldest


class Relay:
    """Sends one schema's outbox to the bus. Every member runs one; each shard is worked on by the one that holds its
    lock, and taken over when that member's session ends."""

    def __init__(self, database: Database, schema: str, producer: Producer) -> None:
        self._database = database
        self._schema = schema
        self._producer = producer
        self._nudged = asyncio.Event()
        self._stopping = False

    def nudge(self) -> None:
        """Something was committed: look now rather than at the next poll."""
        self._nudged.set()

    def stop(self) -> None:
        """Finish the round in hand, then end `run`. What is not sent stays in the table."""
        self._stopping = True
        self._nudged.set()

    async def run(self) -> None:
        """Until stopped. Failures of bus or database are waited out: the table keeps everything."""
        while not self._stopping:
            try:
                await self._hold_session()
            except HeadsupError as error:
                # A Halt too (a topic is missing): who creates the topic must not have to restart us.
                log.warning("outbox_waits", schema=self._schema, reason=error.reason)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("outbox_failed", schema=self._schema)
                await asyncio.sleep(RETRY_SECONDS)

    async def _hold_session(self) -> None:
        """Advisory locks live as long as this connection. It is never inside a transaction while the bus is called."""
        async with self._database.session() as session:
            await session.execute(text(f"SET idle_session_timeout = {int(IDLE_SECONDS * 1000)}"))
            held: set[int] = set()
            while not self._stopping:
                self._nudged.clear()
                for shard in range(SHARDS):
                    if shard not in held and await self._lock(session, shard):
                        held.add(shard)
                sent = [await self._send_round(session, shard) for shard in sorted(held)]
                if not any(count == RELAY_ROWS for count in sent):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._nudged.wait(), POLL_SECONDS)

    async def _lock(self, session: AsyncConnection, shard: int) -> bool:
        name = zlib.crc32(f"headsup.outbox.{self._schema}".encode()) - 2**31
        return bool(
            await session.scalar(text("SELECT pg_try_advisory_lock(:name, :shard)"), {"name": name, "shard": shard})
        )

    async def _send_round(self, session: AsyncConnection, shard: int) -> int:
        rows = (
            await session.execute(
                text(
                    f"SELECT id, topic, key, value, headers FROM {self._schema}.outbox"
                    " WHERE shard = :shard ORDER BY id LIMIT :limit"
                ),
                {"shard": shard, "limit": RELAY_ROWS},
            )
        ).all()
        if not rows:
            return 0
        messages = [
            Message(r.topic, r.key, r.value, tuple((name, value.encode()) for name, value in json.loads(r.headers)))
            for r in rows
        ]
        try:
            await self._producer.send(messages)
        except Reject as error:
            # Only a message larger than the topic's limit gets here; it must not hold up a whole shard in silence.
            raise Retry(f"the bus refuses a message of {self._schema}.outbox: {error.reason}") from error
        await session.execute(
            text(f"DELETE FROM {self._schema}.outbox WHERE shard = :shard AND id = ANY(CAST(:ids AS bigint[]))"),
            {"shard": shard, "ids": [r.id for r in rows]},
        )
        return len(rows)
