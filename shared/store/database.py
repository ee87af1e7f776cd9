"""The PostgreSQL seam: one engine, transactions that end at the edge, errors told as instructions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.errors import HeadsupError, Retry

COMMAND_SECONDS = 30.0
"""A statement that takes longer is given up (Retry): a hung one would hold a partition for ever."""
CONNECT_SECONDS = 10.0
POOL_SECONDS = 10.0
FROZEN_SECONDS = 10
"""A transaction in which nothing happens for this long belongs to a frozen process: PostgreSQL ends it, or its locks
would keep the work from whoever takes over."""

# SQLSTATE classes that pass by themselves: connection, rollback (deadlock, serialization), resources, lock not
# available and other operator intervention, system error.
TRANSIENT_CLASSES = frozenset({"08", "40", "53", "55", "57", "58"})
# The only classes that a transaction's own data bring about: a value that cannot be kept, a constraint it breaks.
DATA_CLASSES = frozenset({"22", "23"})


def normalise_url(url: str) -> str:
    """`postgresql://…` as people write it, with the asyncpg driver named. Anything else is refused (ValueError)."""
    scheme, _, rest = url.partition("://")
    full = f"postgresql+asyncpg://{rest}"
    try:
        if scheme in {"postgresql", "postgres", "postgresql+asyncpg"} and make_url(full).database:
            return full
    except (ArgumentError, ValueError):
        pass  # the same plain word as for what is no URL at all; the error's own text would repeat the password
    raise ValueError("the database is given as postgresql://user@host:port/name")


def transient(error: BaseException) -> bool:
    """True where the same transaction may succeed later, unchanged: nothing in it was at fault."""
    if isinstance(error, OSError | TimeoutError | PoolTimeoutError):
        return True
    if isinstance(error, DBAPIError):
        state = _sqlstate(error)
        lost = error.connection_invalidated or (state is None and not _never_sent(error))
        return lost or (state is not None and state[:2] in TRANSIENT_CLASSES)
    # SQLAlchemy's word for a transaction whose connection died under it.
    return isinstance(error, InvalidRequestError) and "invalid transaction" in str(error)


def about_the_data(error: BaseException) -> bool:
    """True where what was to be written may be at fault, so that leaving out a part of it may help. False for whatever
    the database says about itself (a missing table, a right, a full index): there every input would fail alike."""
    if not isinstance(error, DBAPIError):
        return True
    state = _sqlstate(error)
    return (state is not None and state[:2] in DATA_CLASSES) or _never_sent(error)


def described(error: BaseException) -> str:
    """An error's kind, with the SQLSTATE of a database's. Never its message: that may quote data."""
    state = _sqlstate(error)
    return type(error).__name__ + (f", SQLSTATE {state}" if state else "")


def _sqlstate(error: BaseException) -> str | None:
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state


def _never_sent(error: BaseException) -> bool:
    """The driver itself refused a value."""
    return isinstance(error, DBAPIError) and error.orig is not None and isinstance(error.orig.__cause__, ValueError)


class Database:
    """A pool of connections to one PostgreSQL database.

    Guarantees: `transaction` commits when its block ends and rolls back on any exception; whatever passes by itself is
    raised as `Retry`, with no statement's parameters in its text. After a `Retry` it is **not known** whether a commit
    happened: ask the database (the offset row) before doing the work again.
    """

    def __init__(self, url: str, pool_size: int = 16) -> None:
        self.engine: AsyncEngine = create_async_engine(
            normalise_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_SECONDS,
            hide_parameters=True,
            connect_args={
                "timeout": CONNECT_SECONDS,
                "command_timeout": COMMAND_SECONDS,
                # The planner's generic plans for unnest() guess wrong; JIT costs more than these statements take.
                "server_settings": {
                    "jit": "off",
                    "application_name": "headsup",
                    "idle_in_transaction_session_timeout": f"{FROZEN_SECONDS}s",
                },
            },
        )

        @event.listens_for(self.engine.sync_engine, "invalidate")
        def _forget_pool(*_: object) -> None:
            # One dead connection usually means a restarted server: the idle ones are as dead.
            self.engine.sync_engine.pool.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._told(), self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection]:
        """A connection outside any transaction (each statement commits by itself), for locks that last as it does. It
        is not the pool's any more and is closed at the end: in the pool it would go on holding its locks."""
        async with self._told(), self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.run_sync(Connection.detach)
            yield connection

    @asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        try:
            yield
        except HeadsupError:
            raise
        except Exception as error:
            if transient(error):
                cause = getattr(error, "orig", None) or error
                raise Retry(f"the database did not answer as it should ({type(cause).__name__})") from error
            raise

    async def close(self) -> None:
        await self.engine.dispose()
