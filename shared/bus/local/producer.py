"""Writing to the local log."""

import asyncio
import zlib
from collections.abc import Sequence

from shared.bus.local.ends import Ends
from shared.bus.local.log import Log
from shared.bus.port import Message, check_sizes
from shared.errors import Retry

_BATCH = 5000
_BATCH_BYTES = 16 * 1024 * 1024
_TOPICS_SECONDS = 60.0


class LocalProducer:
    """See `shared.bus.port.Producer`. A key's partition is its CRC-32 modulo the topic's partitions; messages
    without a key go round. Messages are durable when their transaction is committed."""

    def __init__(self, log: Log, ends: Ends) -> None:
        self._log = log
        self._ends = ends
        self._logs: dict[str, list[int]] = {}
        self._logs_seen = 0
        self._logs_until = 0.0
        self._turn = 0
        self._stopped = False
        # Two sends of one producer must not overtake one another on a key.
        self._one_by_one = asyncio.Lock()

    async def start(self) -> None:
        """Raises `Retry` where the database is away."""
        self._stopped = False
        await self._log.entries(())

    async def stop(self) -> None:
        self._stopped = True

    async def send(self, messages: Sequence[Message]) -> None:
        check_sizes(messages)
        async with self._one_by_one:
            if self._stopped:
                raise Retry("the producer was stopped")
            if not messages:
                return
            await self._look_up({message.topic for message in messages})
            placed = [(self._log_of(message), message) for message in messages]
            for batch in _batches(placed):
                self._ends.hear(await self._log.append(batch))

    async def _look_up(self, topics: set[str]) -> None:
        """Remembers the logs of each topic, for a minute: another process may add partitions."""
        now = asyncio.get_running_loop().time()
        if self._logs_seen != self._ends.topics_changed or now > self._logs_until:
            self._logs_seen, self._logs_until = self._ends.topics_changed, now + _TOPICS_SECONDS
            self._logs.clear()
        if unknown := topics - self._logs.keys():
            for partition, entry in (await self._log.known(unknown)).items():
                self._logs.setdefault(partition.topic, []).append(entry.log)

    def _log_of(self, message: Message) -> int:
        logs = self._logs[message.topic]
        if message.key is not None:
            return logs[zlib.crc32(message.key) % len(logs)]
        self._turn += 1
        return logs[self._turn % len(logs)]


def _batches(placed: Sequence[tuple[int, Message]]) -> list[list[tuple[int, Message]]]:
    """One transaction each: neither too many rows nor too many bytes for one statement."""
    batches: list[list[tuple[int, Message]]] = []
    room = 0
    for one in placed:
        size = len(one[1].key or b"") + len(one[1].value or b"")
        if not batches or len(batches[-1]) == _BATCH or size > room:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1].append(one)
        room -= size
    return batches
