"""The bus inside PostgreSQL: what embedded mode runs on, without a broker."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.bus.local.admin import LocalAdmin
from shared.bus.local.consumer import LocalConsumer
from shared.bus.local.ends import Ends
from shared.bus.local.log import Log
from shared.bus.local.producer import LocalProducer
from shared.bus.port import Features, Listener
from shared.clock import Clock

FEATURES = Features(many_members=False, survives_restart_of_broker=False, dense_offsets=True)


class LocalBus:
    """See `shared.bus.port.Bus`. Records are written with the time of `clock`; the engine stays the caller's.
    Needs the tables of `shared/bus/migrations`."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._log = Log(engine, clock)
        self._ends = Ends()

    @property
    def features(self) -> Features:
        return FEATURES

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> LocalConsumer:
        return LocalConsumer(self._log, self._ends, group, topics, listener)

    def producer(self) -> LocalProducer:
        return LocalProducer(self._log, self._ends)

    def admin(self) -> LocalAdmin:
        return LocalAdmin(self._log, self._ends)

    async def close(self) -> None:
        """Nothing is held by the bus itself: members close their own connections, the engine is the
        caller's."""
