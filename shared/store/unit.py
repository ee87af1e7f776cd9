"""The unit of work: everything that one batch changes, in one transaction, committed once at the edge."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.bus.port import Message
from shared.errors import Retry
from shared.store import outbox, timers

Prepare = Callable[[AsyncConnection], Awaitable[None]]


class Raced(Retry):
    """Two partitions met on a key that neither had: roll back and do the batch again with `careful` set.

    `prepare`, where given, runs before that in a transaction of its own: stubs that are committed at once. One that
    holds stubs while it waits for other rows can end in a deadlock."""

    def __init__(self, reason: str, prepare: Prepare | None = None) -> None:
        super().__init__(reason)
        self.prepare = prepare


class UnitOfWork:
    """What a handler gets: a connection inside a transaction, and a place for what must go out with it.

    - `emit` and `wake` only collect; `flush` writes them, once, at the end. Nothing leaves before the commit.
    - `now` is the one instant of this unit (aware, UTC). `silent_until`, never after it, is the service's watermark as
      far as it is known here: only up to that instant is an absence certain (None: up to none). It may be a little less
      than the true one, never more.
    - `careful` asks the repository to insert stubs before it locks (see `Raced`).
    - Without anything emitted the commit is asynchronous: after a crash of PostgreSQL the offset goes back together
      with the state, so nothing is lost. With outbox rows, and in a `durable` unit (a claim, a person's act: nothing
      would bring it back), it is synchronous.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        schema: str,
        now: datetime,
        watermark: datetime | None = None,
        careful: bool = False,
        *,
        durable: bool = False,
    ) -> None:
        self.connection = connection
        self.schema = schema
        self.now = now
        self.silent_until = None if watermark is None else min(now, watermark)
        self.careful = careful
        self._durable = durable
        self.spent: dict[str, float] = {}
        self._messages: list[Message] = []
        self._wakes: dict[str, datetime | None] = {}

    def emit(self, message: Message) -> None:
        """Goes out after the commit, in the order of emission per key, at least once."""
        self._messages.append(message)

    def wake(self, key: str, due_at: datetime | None) -> None:
        """Look at `key` again at `due_at`; None forgets it. A key has at most one due time, its next one."""
        self._wakes[key] = due_at

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Count the block's seconds towards `phase` (load, decide, save) in the batch's time split."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent[phase] = self.spent.get(phase, 0.0) + time.perf_counter() - started

    @property
    def emitted(self) -> Sequence[Message]:
        return self._messages

    @property
    def wakes(self) -> Mapping[str, datetime | None]:
        return self._wakes

    async def flush(self) -> None:
        if self._wakes:
            await timers.save(self.connection, self.schema, self._wakes)
        if self._messages:
            await outbox.add(self.connection, self.schema, self._messages, self.now)
        elif not self._durable:
            await self.connection.execute(text("SET LOCAL synchronous_commit TO off"))
