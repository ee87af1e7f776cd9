"""The servers that other tests stand on do what their docstrings say."""

import asyncio
import subprocess

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer


def _dsn(url: str) -> str:
    return url.replace("+asyncpg", "")


async def _produce(server: KafkaServer, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=server.bootstrap, compression_type="zstd") as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def _read(server: KafkaServer, topic: str, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=server.bootstrap, auto_offset_reset="earliest") as consumer:
        return [(await asyncio.wait_for(consumer.getone(), 30)).value for _ in range(count)]


async def test_kafka_carries_records(kafka: KafkaServer, unique: str) -> None:
    topic = await kafka.create_topic(f"orders-{unique}", partitions=2)
    await _produce(kafka, topic, b"one", "二".encode())
    assert sorted(await _read(kafka, topic, 2)) == [b"one", "二".encode()]


@pytest.mark.requires("kcat")
async def test_kcat_reads_what_aiokafka_writes(kafka: KafkaServer, unique: str) -> None:
    topic = await kafka.create_topic(f"orders-{unique}", retention_ms="600000")
    await _produce(kafka, topic, b"hello")
    command = ["kcat", "-b", kafka.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, timeout=30)
    assert done.stdout == b"hello\n"


async def test_a_killed_broker_comes_back_with_its_records(own_kafka: KafkaServer) -> None:
    topic = await own_kafka.create_topic("orders")
    await _produce(own_kafka, topic, b"before")
    bootstrap, pid = own_kafka.bootstrap, own_kafka.pid
    own_kafka.kill()
    assert not own_kafka.running
    own_kafka.start()
    assert own_kafka.bootstrap == bootstrap
    assert own_kafka.pid != pid
    own_kafka.restart()
    await _produce(own_kafka, topic, b"after")
    assert await _read(own_kafka, topic, 2) == [b"before", b"after"]


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_database_for_itself(database: str, turn: int) -> None:
    connection = await asyncpg.connect(_dsn(database))
    try:
        assert await connection.fetchval("SELECT to_regclass('public.mine')") is None
        await connection.execute("CREATE TABLE public.mine AS SELECT $1::int AS turn", turn)
        assert await connection.fetchval("SELECT turn FROM public.mine") == turn
    finally:
        await connection.close()


async def test_an_empty_database_has_no_tables(empty_database: str) -> None:
    connection = await asyncpg.connect(_dsn(empty_database))
    try:
        query = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        assert await connection.fetchval(query) == 0
    finally:
        await connection.close()


async def test_a_database_server_is_killed_with_its_busy_backends(own_postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(_dsn(own_postgres.url()))
    busy = asyncio.create_task(connection.fetchval("SELECT count(*) FROM generate_series(1, 1000000000)"))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(own_postgres.kill)
    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await asyncio.wait_for(busy, 10)
    await asyncio.to_thread(own_postgres.start)
    assert own_postgres.psql("SELECT 1") == "1"


def test_a_killed_database_server_keeps_what_was_committed(own_postgres: PostgresServer) -> None:
    url = own_postgres.url()
    own_postgres.psql("CREATE TABLE kept AS SELECT 'café' AS word")
    own_postgres.kill()
    with pytest.raises(RuntimeError, match="not running"):
        _ = own_postgres.pid
    own_postgres.start()
    assert own_postgres.url() == url
    own_postgres.restart()
    assert own_postgres.psql("SELECT word FROM kept") == "café"


def test_database_names_are_checked(postgres: PostgresServer) -> None:
    with pytest.raises(ValueError, match="not a plain database name"):
        postgres.drop_database("x; DROP DATABASE postgres")
