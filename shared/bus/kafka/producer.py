"""Writing to Kafka."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors

from shared.bus.kafka.errors import told
from shared.bus.port import Message, check_sizes
from shared.errors import Halt, Retry

_BATCH_BYTES = 256 * 1024
_REQUEST_TIMEOUT_MS = 10_000
_STOP_SECONDS = 10.0


class KafkaProducer:
    """See `shared.bus.port.Producer`. Idempotent and acknowledged by all in-sync replicas: what the client
    repeats on its own is written once and in order. `send_seconds` is how long one `send` may take before it
    raises `Retry`."""

    def __init__(self, servers: Sequence[str], send_seconds: float = 15.0) -> None:
        self._servers = list(servers)
        self._send_seconds = send_seconds
        self._client: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._stopped = False

    async def start(self) -> None:
        async with self._starting:
            if self._client is not None:
                return
            # The default partitioner is Java's murmur2, so our keys meet those of Java producers.
            client = AIOKafkaProducer(
                bootstrap_servers=self._servers,
                acks="all",
                enable_idempotence=True,
                # Writing costs less CPU than with lz4 (measured); reading is about as quick.
                compression_type="zstd",
                max_batch_size=_BATCH_BYTES,
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
                metadata_max_age_ms=60_000,
            )
            try:
                with told("connecting the producer"):
                    async with asyncio.timeout(self._send_seconds):
                        await client.start()
            except BaseException:
                await _close(client)
                raise
            self._client = client

    async def stop(self) -> None:
        self._stopped = True
        await self._discard()

    async def _discard(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def send(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        check_sizes(messages)
        if self._client is None and not self._stopped:
            await self.start()
        client = self._client
        if client is None:
            raise Retry("the producer was stopped")
        with told("sending"):
            try:
                async with asyncio.timeout(self._send_seconds):
                    await _write(client, messages)
            except kafka_errors.UnknownTopicOrPartitionError as error:
                await self._blame(client, messages, error)
            except kafka_errors.KafkaError as error:
                # An idempotent producer whose sequence broke refuses everything from there on: begin with a
                # new one.
                if not error.retriable and not isinstance(error, kafka_errors.MessageSizeTooLargeError):
                    await self._discard()
                raise

    async def _blame(self, client: AIOKafkaProducer, messages: Sequence[Message], error: Exception) -> None:
        """aiokafka calls a topic unknown also when no broker was there to be asked."""
        async with asyncio.timeout(self._send_seconds):
            if not await client.client.force_metadata_update():
                raise Retry("sending: no broker answers") from error
        topics = ", ".join(sorted({message.topic for message in messages}))
        raise Halt(f"sending: a topic of these does not exist: {topics}; run `headsup topics apply`") from error


async def _write(client: AIOKafkaProducer, messages: Sequence[Message]) -> None:
    """Queue all, then wait for all: one round trip for many."""
    acknowledged: list[asyncio.Future[Any]] = []
    try:
        for m in messages:
            acknowledged.append(await client.send(m.topic, value=m.value, key=m.key, headers=list(m.headers)))
        await asyncio.gather(*acknowledged)
    finally:
        for one in acknowledged:
            one.cancel()


async def _close(client: AIOKafkaProducer) -> None:
    """`stop` flushes and would wait for a broker that is away as long as it takes: bounded, then cut."""
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await client.stop()
    except (TimeoutError, kafka_errors.KafkaError, OSError):
        await client.client.close()
