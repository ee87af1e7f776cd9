"""Input that can never be applied, kept whole so that nothing is lost: sealed, for it may hold a phone."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.bus.port import Message, Partition, Record
from shared.events.envelope import event_id
from shared.events.topics import DEAD_LETTERS
from shared.seal import Sealer

MOST_ON_TOPIC: Final = 500_000
"""A larger record (sealed, bytes) is in the table only: on the topic it would not fit into one message."""

LONGEST_KEY: Final = 1024
"""A longer key (bytes) is in the table only: who reads the topic needs it to tell orders apart, and no order's id comes
near."""
LONGEST_WORDS: Final = 200
"""Characters that are kept of a field or a reason: both may quote names that a stranger chose."""

_SEALED: Final = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None, list[tuple[str, bytes]]])


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused record: where it stood, which field is at fault (dotted path, empty for the whole) and why."""

    id: UUID
    topic: str
    partition: int
    offset: int
    field: str
    reason: str
    at: datetime
    retried_at: datetime | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A record with the reason for its refusal, on its way into the table. Make it by `because`."""

    record: Record
    field: str
    reason: str

    @classmethod
    def because(cls, record: Record, reason: str, field: str = "") -> "Refused":
        """Both as text that can be stored and shown, whatever the record holds: see `plain`."""
        return cls(record, plain(field), plain(reason))


def plain(words: str) -> str:
    """Without what cannot be printed (control characters, lone surrogates), and not longer than `LONGEST_WORDS`."""
    kept = "".join(c for c in words[: 2 * LONGEST_WORDS] if c.isprintable())
    return kept if len(kept) <= LONGEST_WORDS else kept[: LONGEST_WORDS - 1] + "…"


def seal_record(sealer: Sealer, record: Record) -> bytes:
    """Key, value and headers as one sealed block; only `unseal_record` with the same secret reads it."""
    headers = [(name, value or b"") for name, value in record.headers]  # Kafka has headers without a value
    return sealer.seal(msgspec.msgpack.encode((record.key, record.value, headers)))


def unseal_record(sealer: Sealer, topic: str, sealed: bytes) -> Message:
    key, value, headers = _SEALED.decode(sealer.open(sealed))
    return Message(topic, key, value, tuple(headers))


async def add(
    connection: AsyncConnection, schema: str, sealer: Sealer, refused: Sequence[Refused], now: datetime
) -> list[Message]:
    """Store these in the batch's transaction; returns the messages for the dead-letter topic, for the same outbox.

    The id comes from topic, partition and offset: doing it twice stores it once."""
    messages = []
    for letter in refused:
        record = letter.record
        identity = event_id("dead-letter", record.topic, str(record.partition), str(record.offset))
        sealed = seal_record(sealer, record)
        where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        await connection.execute(
            text(
                f'INSERT INTO {schema}.dead_letters (id, topic, partition, "offset", field, reason, sealed, at)'
                " VALUES (:id, :topic, :partition, :offset, :field, :reason, :sealed, :at) ON CONFLICT DO NOTHING"
            ),
            {
                "id": UUID(identity),
                **where,
                "field": letter.field,
                "reason": letter.reason,
                "sealed": sealed,
                "at": now,
            },
        )
        body = {"id": identity, "service": schema, **where, "field": letter.field, "reason": letter.reason}
        told = base64.b64encode(sealed).decode() if len(sealed) <= MOST_ON_TOPIC else None
        value = json.dumps({**body, "at": now.isoformat(), "sealed": told}).encode()
        key = record.key if len(record.key or b"") <= LONGEST_KEY else None
        messages.append(Message(DEAD_LETTERS, key, value, (("content-type", b"application/json"),)))
    return messages


_COLUMNS = 'id, topic, partition, "offset", field, reason, at, retried_at'


async def listed(
    connection: AsyncConnection, schema: str, open_only: bool = True, limit: int = 100
) -> Sequence[DeadLetter]:
    """The newest first."""
    where = "WHERE retried_at IS NULL" if open_only else ""
    rows = await connection.execute(
        text(f"SELECT {_COLUMNS} FROM {schema}.dead_letters {where} ORDER BY at DESC, id LIMIT :limit"),
        {"limit": limit},
    )
    return [DeadLetter(*row) for row in rows]


async def fetch(connection: AsyncConnection, schema: str, letter_id: UUID) -> tuple[DeadLetter, bytes] | None:
    """One letter with its sealed record; None where there is none of that id."""
    row = (
        await connection.execute(
            text(f"SELECT {_COLUMNS}, sealed FROM {schema}.dead_letters WHERE id = :id"), {"id": letter_id}
        )
    ).one_or_none()
    return None if row is None else (DeadLetter(*row[:-1]), row.sealed)


async def mark_retried(connection: AsyncConnection, schema: str, letter_id: UUID, now: datetime) -> None:
    await connection.execute(
        text(f"UPDATE {schema}.dead_letters SET retried_at = :now WHERE id = :id"), {"id": letter_id, "now": now}
    )


def partition_of(letter: DeadLetter) -> Partition:
    return Partition(letter.topic, letter.partition)
