"""The sandbox: every customer is reached by SMS and by picture message, on the demo phone and nowhere else.

Messages are kept in the database; photo addresses pass unfetched and unchanged. It can be told to fail, to time out
before or after taking a message over, to be slow, and to lose receipts. Receipts come back by `Receipts`, as those of
any provider would: later.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.dispatcher.channels.port import (
    Failed,
    Features,
    Message,
    Outcome,
    Receipt,
    ReceiptState,
    ReplyRoute,
    Sent,
    Unknown,
    unsendable,
)
from shared.clock import Clock
from shared.errors import HeadsupError
from shared.events.deliveries import Channel as Kind
from shared.store.database import Database

log = structlog.get_logger(__name__)

SMS: Final = "sandbox-sms"
DM: Final = "sandbox-dm"
RECEIPTS: Final = 500
POLL_SECONDS: Final = 0.5
CONNECTIONS: Final = 3
"""Of the database's pool, for each of the two channels: the sender needs the others."""

FEATURES: Final = {
    SMS: Features(
        kinds=(Kind.SMS,),
        address=None,
        pictures=False,
        receipts=True,
        inbound=True,
        reply_route=ReplyRoute.PHONE,
        longest=500,
    ),
    DM: Features(
        kinds=(Kind.DM, Kind.CHAT),
        address=None,
        pictures=True,
        receipts=True,
        inbound=True,
        reply_route=ReplyRoute.THREAD,
        longest=4000,
        quiet=True,
    ),
}


class Behaviour(StrEnum):
    """How the sandbox misbehaves: `fail` for a moment, `refuse` for good, `timeout` before anything was taken over (yet
    nobody can know), `accept_then_timeout` after, `accept_then_silence` (as that, and no receipt either), `delay` by
    seconds, `lose_receipts`."""

    FAIL = "fail"
    REFUSE = "refuse"
    TIMEOUT = "timeout"
    ACCEPT_THEN_TIMEOUT = "accept_then_timeout"
    ACCEPT_THEN_SILENCE = "accept_then_silence"
    DELAY = "delay"
    LOSE_RECEIPTS = "lose_receipts"


SILENT: Final = frozenset({Behaviour.LOSE_RECEIPTS, Behaviour.ACCEPT_THEN_SILENCE})
"""Brings no receipt."""
NOT_TAKEN: Final = frozenset({Behaviour.FAIL, Behaviour.REFUSE, Behaviour.TIMEOUT, Behaviour.DELAY})
"""Where the message is not kept, or not yet."""


class Sandbox:
    """One of the sandbox's two channels."""

    def __init__(self, name: str, database: Database, clock: Clock, nudge: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.features = FEATURES[name]
        self._database = database
        self._clock = clock
        self._nudge = nudge
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def send(self, message: Message) -> Outcome:
        if (problem := unsendable(message, self.features.longest)) is not None:
            return problem
        message_id = uuid4().hex
        try:
            async with self._places, self._database.transaction() as connection:
                behaviour, seconds = await _behaviour(connection)
                if behaviour not in NOT_TAKEN:
                    await self._keep(connection, message, message_id, behaviour)
            if behaviour is Behaviour.DELAY:
                await asyncio.sleep(seconds)
                async with self._places, self._database.transaction() as connection:
                    await self._keep(connection, message, message_id, behaviour)
        except HeadsupError as error:
            return Unknown(error.reason)
        self._nudge()
        if behaviour is Behaviour.FAIL:
            return Failed("the sandbox was told to fail", retry_after=seconds or None)
        if behaviour is Behaviour.REFUSE:
            return Failed("the sandbox was told to refuse", permanent=True)
        if behaviour in (Behaviour.TIMEOUT, Behaviour.ACCEPT_THEN_TIMEOUT, Behaviour.ACCEPT_THEN_SILENCE):
            return Unknown("the sandbox was told not to answer")
        return Sent(message_id)

    async def health(self) -> str:
        return ""

    async def close(self) -> None:
        return None

    async def _keep(
        self, connection: AsyncConnection, message: Message, message_id: str, behaviour: Behaviour | None
    ) -> None:
        """A message that a customer gets twice is two rows."""
        await connection.execute(
            text(
                "INSERT INTO dispatcher.sandbox_messages (message_id, reference, store_id, provider, kind,"
                " recipient_end, signature, body, media, at, receipt_due) VALUES (:id, :reference, :store,"
                " :provider, :kind, :end, :signature, :body, CAST(:media AS jsonb), :at, :receipt)"
            ),
            {
                "id": message_id,
                "reference": message.reference,
                "store": message.store_id,
                "provider": self.name,
                "kind": str(message.kind),
                "end": message.to[-4:],
                "signature": message.signature,
                "body": message.text,
                "media": json.dumps(message.media),
                "at": self._clock.now(),
                "receipt": behaviour not in SILENT,
            },
        )


async def _behaviour(connection: AsyncConnection) -> tuple[Behaviour | None, float]:
    row = (
        await connection.execute(
            text(
                "UPDATE dispatcher.sandbox_behaviours SET remaining = remaining - 1 WHERE id ="
                " (SELECT id FROM dispatcher.sandbox_behaviours WHERE remaining > 0 ORDER BY id LIMIT 1"
                " FOR UPDATE) RETURNING kind, seconds"
            )
        )
    ).one_or_none()
    return (None, 0.0) if row is None else (Behaviour(row.kind), row.seconds)


TakeReceipts = Callable[[str, Sequence[Receipt]], Awaitable[None]]


class Receipts:
    """The `Background` that sends the sandbox's receipts back."""

    def __init__(self, database: Database, take: TakeReceipts, sent: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._take = take
        self._sent = sent
        self._nudged = asyncio.Event()
        self._stopping = False

    def nudge(self) -> None:
        self._nudged.set()

    def stop(self) -> None:
        self._stopping = True
        self._nudged.set()

    async def settled(self) -> bool:
        return not await self._due(1)

    async def run(self) -> None:
        while not self._stopping:
            self._nudged.clear()
            try:
                again = await self._round()
            except HeadsupError as error:
                log.warning("sandbox_receipts_wait", reason=error.reason)
                again = False
            except Exception:
                log.exception("sandbox_receipts_failed")
                again = False
            if not again:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._nudged.wait(), POLL_SECONDS)

    async def _round(self) -> bool:
        due = await self._due(RECEIPTS)
        for provider in sorted({row.provider for row in due}):
            receipts = [
                Receipt(row.reference, ReceiptState.DELIVERED, at=row.at) for row in due if row.provider == provider
            ]
            await self._take(provider, receipts)
        if due:
            async with self._database.transaction() as connection:
                await connection.execute(
                    text(
                        "UPDATE dispatcher.sandbox_messages SET receipt_due = false"
                        " WHERE message_id = ANY(CAST(:ids AS text[]))"
                    ),
                    {"ids": [row.message_id for row in due]},
                )
            self._sent()
        return len(due) == RECEIPTS

    async def _due(self, limit: int) -> Sequence[Any]:
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                text(
                    "SELECT message_id, reference, provider, at FROM dispatcher.sandbox_messages"
                    " WHERE receipt_due ORDER BY at LIMIT :limit"
                ),
                {"limit": limit},
            )
            return rows.all()
