"""Being the one member of a group: a lock that lasts exactly as long as a connection."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.bus.local.log import CHANNEL
from shared.errors import Retry

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0


class Membership:
    """A connection of its own that holds the group's advisory lock and listens for appends.

    The connection's end ends the membership, so a crashed member's group is free as soon as the database
    notices. `lost` is called once if it ends by itself; `appended` with what others wrote.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        group: str,
        lost: Callable[[], None],
        appended: Callable[[Mapping[int, int]], None],
    ) -> None:
        self._engine = engine
        self._group = group
        self._lost = lost
        self._appended = appended
        self._connection: Any = None

    async def enter(self) -> None:
        """Raises `Retry` where another has the group or the database is away."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._enter()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            await self.leave()
            raise Retry(f"the local bus's database did not answer: {type(error).__name__}") from error
        except BaseException:
            await self.leave()
            raise

    async def _enter(self) -> None:
        _, arguments = self._engine.dialect.create_connect_args(self._engine.url)
        wanted = {name: arguments[name] for name in _ASYNCPG if name in arguments}
        # Unpooled, since it is kept for as long as the member lives. Idle connections must not be cut by the
        # server.
        settings = {"application_name": f"headsup bus {self._group}"[:63], "idle_session_timeout": "0"}
        self._connection = await asyncpg.connect(**wanted, server_settings=settings, command_timeout=_CONNECT_SECONDS)
        if not await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", _lock_of(self._group)):
            raise Retry(f"the group {self._group} has its one member already; the local bus takes no second one")
        await self._connection.add_listener(CHANNEL, self._notified)
        self._connection.add_termination_listener(self._terminated)

    async def check(self) -> None:
        """Raises `Retry` and calls `lost` where the connection is silently dead: the lock is gone with it."""
        connection = self._connection
        try:
            if connection is not None:
                await connection.execute("SELECT 1")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            connection.terminate()
            self._terminated(connection)
            raise Retry(f"the connection of the member of {self._group} broke: {type(error).__name__}") from error

    async def leave(self) -> None:
        """The group is free on return. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=_CLOSE_SECONDS)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    def _notified(self, connection: object, pid: int, channel: str, payload: str) -> None:
        self._appended({int(log): end for log, end in json.loads(payload).items()})

    def _terminated(self, connection: object) -> None:
        if connection is self._connection:
            self._connection = None
            self._lost()


_ASYNCPG = ("host", "port", "user", "password", "database", "passfile", "ssl", "service")


def _lock_of(group: str) -> int:
    digest = hashlib.blake2b(f"headsup.bus:{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
