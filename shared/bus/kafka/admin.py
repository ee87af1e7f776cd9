"""Topics, offsets and times of Kafka, for provisioning, lag and the command line."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from shared.bus.kafka.client import bounds_of
from shared.bus.kafka.errors import told
from shared.bus.port import Bounds, Partition, TopicSpec
from shared.errors import Halt, Retry

_SECONDS = 15.0
_HOUR_MS = 3_600_000


class KafkaAdmin:
    """See `shared.bus.port.Admin`. Connects on first use; every question has a time limit of 15 s."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = list(servers)
        self._client: AIOKafkaAdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._connecting = asyncio.Lock()
        self._reading = asyncio.Lock()

    async def apply(self, topics: Sequence[TopicSpec]) -> Sequence[str]:
        async with self._asking("applying topics") as client:
            there = await _partition_counts(client)
            changes: list[str] = []
            for spec in topics:
                if spec.name not in there:
                    response = await client.create_topics([_new_topic(spec)])
                    if _check(response, spec.name):
                        changes.append(f"created {spec.name} with {spec.partitions} partitions")
                elif there[spec.name] < spec.partitions:
                    await client.create_partitions({spec.name: NewPartitions(spec.partitions)})
                    changes.append(f"{spec.name}: {there[spec.name]} to {spec.partitions} partitions")
            if changes:
                await _until_known(client, topics)
            return changes

    async def partitions(self, topics: Collection[str]) -> Sequence[Partition]:
        async with self._asking("looking up topics") as client:
            there = await _partition_counts(client)
        if missing := sorted(set(topics) - there.keys()):
            raise Halt(f"these topics do not exist: {', '.join(missing)}; run `headsup topics apply`")
        return [Partition(topic, number) for topic in sorted(set(topics)) for number in range(there[topic])]

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, Bounds]:
        await self._must_exist(partitions)
        with told("asking where the logs begin and end"):
            async with asyncio.timeout(_SECONDS):
                return await bounds_of(await self._connected_reader(), partitions)

    async def committed(self, group: str) -> Mapping[Partition, int]:
        async with self._asking("asking for committed offsets") as client:
            stored = await client.list_consumer_group_offsets(group)
        return {Partition(*tp): meta.offset for tp, meta in stored.items() if meta.offset >= 0}

    async def written_at(self, partition: Partition, offset: int) -> datetime | None:
        first, end = (await self.bounds([partition]))[partition]
        if offset >= end:
            return None
        tp = TopicPartition(*partition)
        with told(f"reading the time of {partition} at {offset}"):
            async with self._reading, asyncio.timeout(_SECONDS):
                reader = await self._connected_reader()
                reader.assign([tp])
                reader.seek(tp, max(first, offset))
                # What is left may be nothing but transaction markers: then the position walks to the end by
                # itself.
                while await reader.position(tp) < end:
                    found = await reader.getmany(tp, timeout_ms=200, max_records=1)
                    if records := found.get(tp):
                        return datetime.fromtimestamp(records[0].timestamp / 1000, UTC)
        return None

    async def close(self) -> None:
        client, self._client = self._client, None
        reader, self._reader = self._reader, None
        if client is not None:
            await client.close()
        if reader is not None:
            await reader.stop()

    async def _must_exist(self, partitions: Collection[Partition]) -> None:
        there = set(await self.partitions({partition.topic for partition in partitions}))
        if missing := sorted(set(partitions) - there):
            raise Halt(f"these partitions do not exist: {', '.join(map(str, missing))}")

    @asynccontextmanager
    async def _asking(self, doing: str) -> AsyncIterator[AIOKafkaAdminClient]:
        with told(doing):
            async with asyncio.timeout(_SECONDS):
                yield await self._connected_client()

    async def _connected_client(self) -> AIOKafkaAdminClient:
        async with self._connecting:
            if self._client is None:
                client = AIOKafkaAdminClient(bootstrap_servers=self._servers, request_timeout_ms=10_000)
                try:
                    await client.start()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def _connected_reader(self) -> AIOKafkaConsumer:
        async with self._connecting:
            if self._reader is None:
                # One byte a fetch: brokers still answer with a whole first batch, and never with more than
                # that.
                reader = AIOKafkaConsumer(
                    bootstrap_servers=self._servers,
                    group_id=None,
                    enable_auto_commit=False,
                    auto_offset_reset="none",
                    isolation_level="read_committed",
                    max_partition_fetch_bytes=1,
                    request_timeout_ms=10_000,
                )
                try:
                    await reader.start()
                except BaseException:
                    await reader.stop()
                    raise
                self._reader = reader
            return self._reader


def _new_topic(spec: TopicSpec) -> NewTopic:
    if spec.compacted:
        configs = {"cleanup.policy": "compact"}
    else:
        configs = {"cleanup.policy": "delete", "retention.ms": str(spec.retention_hours * _HOUR_MS)}
    # -1 takes the cluster's own replication factor; aiokafka accepts it beside an (empty) table of replicas
    # only.
    return NewTopic(spec.name, spec.partitions, -1, replica_assignments={}, topic_configs=configs)


def _check(response: Any, topic: str) -> bool:
    """True when it was made, False when another was faster."""
    for name, code, *words in response.topic_errors:
        error = kafka_errors.for_code(code)
        if error is kafka_errors.TopicAlreadyExistsError:
            return False
        if error is not kafka_errors.NoError:
            raise error(f"{name}: {words[0] if words else ''}")
        if name == topic:
            return True
    raise Retry(f"the broker said nothing about {topic}")


async def _partition_counts(client: AIOKafkaAdminClient) -> dict[str, int]:
    """All topics are asked for: naming one would create it where brokers create on demand."""
    return {
        topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics() if topic["error_code"] == 0
    }


async def _until_known(client: AIOKafkaAdminClient, topics: Iterable[TopicSpec]) -> None:
    """A controller answers before its brokers know: wait, so that what was applied can be used."""
    while True:
        there = await _partition_counts(client)
        if all(there.get(spec.name, 0) >= spec.partitions for spec in topics):
            return
        await asyncio.sleep(0.05)
