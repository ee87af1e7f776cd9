"""aiokafka's consumer: how we set it up, and the corners that need care."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from shared.bus.port import Bounds, Partition

_GRACE_SECONDS = 1.0
_STOP_SECONDS = 10.0


def new_member(servers: Sequence[str], group: str, session_timeout_ms: int) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",  # a position outside of the log is an alarm, not a place to guess from
        # Order systems may write in transactions; what they rolled back never happened. Costs nothing
        # otherwise.
        isolation_level="read_committed",
        # The same partition of every topic goes to the same member: fewer rows that two processes fight
        # for.
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=session_timeout_ms,
        heartbeat_interval_ms=max(session_timeout_ms // 6, 100),
        # How long a rebalance waits for a member that finishes its batch in `revoked`.
        rebalance_timeout_ms=30_000,
        # A member that waits for a slow database is healthy: heartbeats prove life, the worker's watchdog
        # progress.
        max_poll_interval_ms=24 * 3_600_000,
        # One fetch at a time goes to each broker, so a long poll on empty partitions delays the full
        # ones.
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=1024 * 1024,
        fetch_max_bytes=8 * 1024 * 1024,
        request_timeout_ms=15_000,
        metadata_max_age_ms=60_000,
    )


async def records_of(
    client: AIOKafkaConsumer, partition: Partition, max_records: int, wait: float
) -> Sequence[Any] | None:
    """None when it was cut short: in a rebalance `getmany` waits without regard to its own time limit."""
    tp = TopicPartition(*partition)
    try:
        async with asyncio.timeout(wait + _GRACE_SECONDS):
            found = await client.getmany(tp, timeout_ms=int(wait * 1000), max_records=max_records)
    except TimeoutError:
        return None
    records: Sequence[Any] = found.get(tp, ())
    return records


def position_of(client: AIOKafkaConsumer, partition: Partition) -> int | None:
    """What `await client.position()` returns, without its wait."""
    assignment = client._subscription.subscription.assignment
    state = assignment.state_value(TopicPartition(*partition)) if assignment is not None else None
    return int(state.position) if state is not None and state.has_valid_position else None


async def close(client: AIOKafkaConsumer) -> None:
    """Leaving the group waits for a broker that is away as long as it takes: bounded, then cut."""
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await client.stop()
    except (TimeoutError, kafka_errors.KafkaError, OSError):
        await client._client.close()


async def bounds_of(reader: AIOKafkaConsumer, partitions: Collection[Partition]) -> dict[Partition, Bounds]:
    """First and end of each, as the brokers say now. The caller sets the time limit and translates errors."""
    wanted = [TopicPartition(*partition) for partition in partitions]
    if not wanted:
        return {}
    first, end = await asyncio.gather(reader.beginning_offsets(wanted), reader.end_offsets(wanted))
    return {Partition(*tp): Bounds(first[tp], end[tp]) for tp in wanted}
