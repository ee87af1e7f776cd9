"""Reading from Kafka as a member of a group."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.abc import ConsumerRebalanceListener

from shared.bus.kafka.admin import KafkaAdmin
from shared.bus.kafka.client import bounds_of, close, new_member, position_of, records_of
from shared.bus.kafka.errors import told
from shared.bus.kafka.held import Held
from shared.bus.port import Bounds, Listener, Partition, Record
from shared.errors import Halt, HeadsupError, Retry

_COMMIT_SECONDS = 5.0
_ASK_SECONDS = 10.0
_START_SECONDS = 45.0
_LONGEST_PAUSE = 5.0

_log = logging.getLogger(__name__)


class KafkaConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """See `shared.bus.port.Consumer`.

    aiokafka's own position is never trusted across an await: a fetch that was cut short, a seek or a
    rebalance in its midst leaves the partition `adrift`, and the next fetch seeks to the position kept here.
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
        self._listener = listener
        self._session_timeout_ms = session_timeout_ms
        self._client: AIOKafkaConsumer | None = None
        self._held: dict[Partition, Held] = {}
        self._paused: set[Partition] = set()
        self._gone = asyncio.Event()  # set when the partitions held now are no longer ours
        self._placing: asyncio.Task[None] | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        admin = KafkaAdmin(self._servers)
        try:
            await admin.partitions(self._topics)
        finally:
            await admin.close()
        await self._join()

    async def _join(self) -> None:
        client = new_member(self._servers, self._group, self._session_timeout_ms)
        client.subscribe(self._topics, listener=self)
        self._client = client
        try:
            with told(f"joining the group {self._group}"):
                async with asyncio.timeout(_START_SECONDS):
                    await client.start()
        except BaseException:
            self._client = None
            await close(client)
            raise
        self._watch(client)

    async def stop(self) -> None:
        self._stopped = True
        if self._rejoining is not None:
            await asyncio.wait({self._rejoining})
        client, self._client = self._client, None
        await self._release()
        if client is not None:
            await close(client)

    @property
    def assignment(self) -> frozenset[Partition]:
        return frozenset(self._held)

    async def fetch(self, partition: Partition, max_records: int, timeout: float) -> Sequence[Record]:
        until = asyncio.get_running_loop().time() + timeout
        self._living_client()
        held = await self._readable(partition, until)
        if held is None:
            return ()
        client = self._living_client()
        begin = held.position
        assert begin is not None  # _readable waits for it
        tp = TopicPartition(*partition)
        try:
            with told(f"reading {partition} at {begin}"):
                if held.adrift:
                    client.seek(tp, begin)
                    held.adrift = False
                wait = max(until - asyncio.get_running_loop().time(), 0)
                records = await records_of(client, tp, max_records, wait)
        except HeadsupError:
            self._drift(partition)
            if self._held.get(partition) is not held or held.position != begin:
                return ()  # what went wrong concerns a place where we no longer are
            raise
        except BaseException:
            self._drift(partition)
            raise
        moved = held.adrift or held.position != begin or self._held.get(partition) is not held
        if moved or partition in self._paused:
            self._drift(partition)
            return ()
        if records:
            held.position = records[-1].offset + 1
        return records

    async def _readable(self, partition: Partition, until: float) -> Held | None:
        """The partition once records may be handed out from it; None when that did not come in time."""
        while True:
            held = self._held.get(partition)
            if held is None:
                return None
            if held.error is not None:
                raise held.error
            if held.position is not None and partition not in self._paused:
                return held
            if not await held.change(until):
                return None

    def _living_client(self) -> AIOKafkaConsumer:
        client = self._client
        if client is None or self._rejoining is not None:
            raise Retry(f"this member of {self._group} is not connected")
        return client

    def _watch(self, client: AIOKafkaConsumer) -> None:
        """aiokafka's background tasks can die of surprises and would leave a member that reads nothing, in
        silence."""

        def died(task: asyncio.Task[None]) -> None:
            if client is self._client and self._rejoining is None and not self._stopped:
                self._rejoining = asyncio.create_task(self._rejoin(client))

        for task in (client._coordinator._coordination_task, client._fetcher.error_future):
            task.add_done_callback(died)

    async def _rejoin(self, dead: AIOKafkaConsumer) -> None:
        _log.error("the Kafka client of group %s died; it joins again", self._group)
        pause = 0.2
        try:
            await self._release()
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

    def pause(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            if partition in self._held:
                self._paused.add(partition)
                self._client_does("pause", partition)

    def resume(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._paused.discard(partition)
            held = self._held.get(partition)
            if held is not None and held.position is not None:  # else it is held back until it has its place
                self._client_does("resume", partition)
                held.changed()

    def seek(self, partition: Partition, offset: int) -> None:
        held = self._held.get(partition)
        if held is None:
            return
        held.place(offset)
        self._client_does("seek", partition, offset)
        if partition not in self._paused:
            self._client_does("resume", partition)

    def position(self, partition: Partition) -> int | None:
        held = self._held.get(partition)
        if held is None or held.position is None:
            return None
        if held.adrift or self._client is None:
            return held.position
        # Beyond our own count where aiokafka has read over markers and found no record behind them.
        return max(held.position, position_of(self._client, partition) or 0)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        if not offsets:
            return
        client = self._living_client()
        with told(f"committing offsets of {self._group}"):
            async with asyncio.timeout(_COMMIT_SECONDS):  # aiokafka itself tries for ever
                await client.commit({TopicPartition(*p): offset for p, offset in offsets.items()})

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        client = self._living_client()
        with told("asking where the logs begin and end"):
            async with asyncio.timeout(_ASK_SECONDS):
                return await bounds_of(client, partitions)

    # aiokafka calls these two

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Pauses before anything awaits, and returns at once: no heartbeat is sent for as long as this
        runs."""
        held = {Partition(*tp): Held() for tp in assigned}
        for partition in held:
            self._client_does("pause", partition)
        self._held = held
        self._paused &= held.keys()
        self._gone = asyncio.Event()
        if held:
            self._placing = asyncio.create_task(self._place(held, self._gone))

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._release()

    async def _release(self) -> None:
        lost, self._held = self._held, {}
        self._gone.set()
        for held in lost.values():
            held.changed()
        placing, self._placing = self._placing, None
        if placing is not None:
            # Not cancelled: the listener may be inside a database call. It ends by its own time limits.
            await asyncio.wait({placing})
        if lost:
            try:
                await self._listener.revoked(frozenset(lost))
            except Exception:
                _log.exception("the listener of %s failed to let go of its partitions", self._group)

    async def _place(self, batch: dict[Partition, Held], gone: asyncio.Event) -> None:
        """Ask where to read on until there is an answer, then let the partitions go."""
        pause = 0.1
        while not gone.is_set():
            try:
                starts = await self._starts(batch)
            except Exception as error:
                reason = _as_instruction(error)
                for held in batch.values():
                    held.fail(reason)
                if not isinstance(reason, Retry):
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(gone.wait(), pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                if not gone.is_set():
                    for partition, offset in starts.items():
                        self.seek(partition, offset)
                return

    async def _starts(self, batch: Iterable[Partition]) -> dict[Partition, int]:
        partitions = frozenset(batch)
        wanted = dict(await self._listener.assigned(partitions))
        starts = {p: offset for p in partitions if (offset := wanted.get(p)) is not None}
        client = self._client
        if len(starts) == len(partitions) or client is None:
            return starts
        with told("finding where the group stood"):
            async with asyncio.timeout(_ASK_SECONDS):
                for partition in partitions - starts.keys():
                    tp = TopicPartition(*partition)
                    committed = await client.committed(tp)
                    if committed is None:
                        committed = (await client.beginning_offsets([tp]))[tp]
                    starts[partition] = committed
        return starts

    def _drift(self, partition: Partition) -> None:
        if (held := self._held.get(partition)) is not None:
            held.adrift = True

    def _client_does(self, action: str, partition: Partition, *arguments: int) -> None:
        """`pause`, `resume` or `seek`. aiokafka refuses where a rebalance just took the partition: no matter."""
        with suppress(kafka_errors.IllegalStateError):
            if self._client is not None:
                getattr(self._client, action)(TopicPartition(*partition), *arguments)


def _as_instruction(error: Exception) -> HeadsupError:
    if isinstance(error, (Retry, Halt)):
        return error
    _log.error("a listener failed to say where to read on", exc_info=error)
    return Retry(f"the listener failed: {error!r}")
