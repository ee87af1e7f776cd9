"""Reading from Kafka as a member of a group."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.abc import ConsumerRebalanceListener

from shared.bus.assignment import Assignment, Starts
from shared.bus.kafka.admin import KafkaAdmin
from shared.bus.kafka.client import bounds_of, close, new_member, position_of, records_of
from shared.bus.kafka.errors import told
from shared.bus.port import Bounds, Listener, Partition, Record
from shared.errors import HeadsupError, Retry

_COMMIT_SECONDS = 5.0
_ASK_SECONDS = 10.0
_START_SECONDS = 45.0
_LONGEST_PAUSE = 5.0

_log = logging.getLogger(__name__)


class KafkaConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """See `shared.bus.port.Consumer`.

    aiokafka's own position is never trusted across an await: a fetch that was cut short, a seek or a
    rebalance in its midst leaves the partition adrift, and the next fetch seeks to the position kept here.
    """

    def __init__(
        self,
        servers: Sequence[str],
        group: str,
        topics: Sequence[str],
        listener: Listener,
        session_timeout_ms: int = 6000,
    ) -> None:
        self._servers = list(servers)
        self._group = group
        self._topics = sorted(set(topics))
        self._session_timeout_ms = session_timeout_ms
        self._client: AIOKafkaConsumer | None = None
        self._ours = Assignment(group, listener, self._where_the_group_stood, self._placed)
        self._adrift: set[Partition] = set()
        self._rejoining: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        admin = KafkaAdmin(self._servers)
        try:
            await admin.partitions(self._topics)
        finally:
            await admin.close()
        await self._join()

    async def stop(self) -> None:
        self._stopped = True
        if self._rejoining is not None:
            await asyncio.wait({self._rejoining})
        await self._ours.release()
        client, self._client = self._client, None
        if client is not None:
            await close(client)

    @property
    def assignment(self) -> frozenset[Partition]:
        return self._ours.partitions

    async def fetch(self, partition: Partition, max_records: int, timeout: float) -> Sequence[Record]:
        clock = asyncio.get_running_loop().time
        until = clock() + timeout
        self._living()
        held = await self._ours.readable(partition, until)
        if held is None:
            return ()
        begin = held.position
        assert begin is not None  # readable waits for it
        client = self._living()
        try:
            with told(f"reading {partition} at {begin}"):
                if partition in self._adrift:
                    client.seek(TopicPartition(*partition), begin)
                    self._adrift.discard(partition)
                records = await records_of(client, partition, max_records, max(until - clock(), 0))
        except BaseException as error:
            self._adrift.add(partition)
            if isinstance(error, HeadsupError) and (self._ours.get(partition) is not held or held.position != begin):
                return ()  # what went wrong concerns a place where we no longer are
            raise
        moved = partition in self._adrift or self._ours.get(partition) is not held or held.position != begin
        if records is None or moved or partition in self._ours.paused:
            self._adrift.add(partition)
            return ()
        if records:
            held.position = records[-1].offset + 1
        return records

    def pause(self, partitions: Collection[Partition]) -> None:
        for partition in self._ours.partitions.intersection(partitions):
            self._ours.paused.add(partition)
            self._client_does("pause", partition)

    def resume(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._ours.paused.discard(partition)
            held = self._ours.get(partition)
            if held is not None and held.position is not None:  # else it is held back until it has its place
                self._client_does("resume", partition)
                held.changed()

    def seek(self, partition: Partition, offset: int) -> None:
        self._ours.seek(partition, offset)

    def position(self, partition: Partition) -> int | None:
        held = self._ours.get(partition)
        if held is None or held.position is None:
            return None
        if partition in self._adrift or self._client is None:
            return held.position
        # Beyond our own count where aiokafka has read over markers and found no record behind them.
        return max(held.position, position_of(self._client, partition) or 0)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        if not offsets:
            return
        client = self._living()
        with told(f"committing offsets of {self._group}"):
            async with asyncio.timeout(_COMMIT_SECONDS):  # aiokafka itself tries for ever
                await client.commit({TopicPartition(*p): offset for p, offset in offsets.items()})

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        client = self._living()
        with told("asking where the logs begin and end"):
            async with asyncio.timeout(_ASK_SECONDS):
                return await bounds_of(client, partitions)

    # aiokafka calls these two.

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Pauses before anything awaits, and returns at once: no heartbeat is sent for as long as this
        runs."""
        partitions = [Partition(*tp) for tp in assigned]
        for partition in partitions:
            self._client_does("pause", partition)
        self._adrift.clear()
        self._ours.take(partitions)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._ours.release()

    def _placed(self, partition: Partition, offset: int) -> None:
        self._client_does("seek", partition, offset)
        if partition not in self._ours.paused:
            self._client_does("resume", partition)

    async def _where_the_group_stood(self, partitions: Collection[Partition]) -> Starts:
        client = self._living()
        starts = {}
        with told(f"finding where {self._group} stood"):
            async with asyncio.timeout(_ASK_SECONDS):
                for partition in partitions:
                    tp = TopicPartition(*partition)
                    committed = await client.committed(tp)
                    starts[partition] = (await client.beginning_offsets([tp]))[tp] if committed is None else committed
        return starts

    def _client_does(self, action: str, partition: Partition, *arguments: int) -> None:
        """`pause`, `resume` or `seek`. aiokafka refuses where a rebalance just took the partition: no
        matter."""
        with suppress(kafka_errors.IllegalStateError):
            if self._client is not None:
                getattr(self._client, action)(TopicPartition(*partition), *arguments)

    def _living(self) -> AIOKafkaConsumer:
        client = self._client
        if client is None or self._rejoining is not None:
            raise Retry(f"this member of {self._group} is not connected")
        return client

    async def _join(self) -> None:
        client = new_member(self._servers, self._group, self._session_timeout_ms)
        client.subscribe(self._topics, listener=self)
        self._client = client
        try:
            with told(f"joining the group {self._group}"):
                async with asyncio.timeout(_START_SECONDS):
                    await client.start()
        except BaseException:
            await self._ours.release()
            self._client = None
            await close(client)
            raise
        self._watch(client)

    def _watch(self, client: AIOKafkaConsumer) -> None:
        """aiokafka's background tasks can die of surprises and would leave a member that reads nothing, in
        silence."""

        def died(_: asyncio.Task[None]) -> None:
            if client is self._client and self._rejoining is None and not self._stopped:
                self._rejoining = asyncio.create_task(self._rejoin(client))

        for task in (client._coordinator._coordination_task, client._fetcher.error_future):
            task.add_done_callback(died)

    async def _rejoin(self, dead: AIOKafkaConsumer) -> None:
        _log.error("the Kafka client of group %s died; it joins again", self._group)
        pause = 0.2
        try:
            await self._ours.release()
            self._client = None
            await close(dead)
            while not self._stopped:
                try:
                    return await self._join()
                except HeadsupError as error:
                    _log.warning("joining %s again failed: %s", self._group, error.reason)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            self._rejoining = None
