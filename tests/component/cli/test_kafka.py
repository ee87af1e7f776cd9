"""Single services on Kafka and a PostgreSQL that is there already."""

import base64
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from tests.component.cli.support import PHONE, Cli, Process, eventually, paid
from tests.support.kafka import KafkaServer
from tests.support.processes import free_port

KEY = "0123456789abcdef"


@pytest.fixture
def settings(kafka: KafkaServer, empty_database: str) -> dict[str, str]:
    return {
        "HEADSUP_BUS": f"kafka://{kafka.bootstrap}",
        "HEADSUP_DATABASE": empty_database.replace("+asyncpg", ""),
        "HEADSUP_SECRET": base64.b64encode(os.urandom(32)).decode(),
        "HEADSUP_API_KEY": KEY,
        "HEADSUP_TOPICS__PARTITIONS": "2",
    }


@pytest.fixture
def detector(cli: Cli, workspace: Path, unique: str, settings: dict[str, str]) -> Iterator[tuple[Process, str]]:
    """A `headsup run detector` on a prepared bus and database, and its URL."""
    assert cli("run", "detector", **settings).returncode == 1  # says that the database is not up to date
    assert cli("db", "migrate", **settings).returncode == 0
    assert cli("topics", "apply", **settings).returncode == 0
    assert cli.json("topics", "apply", **settings) == {"changes": []}
    port = free_port()
    process = Process(cli, workspace / f"run-{unique}.log", "run", "detector", "--port", str(port), **settings)
    yield process, f"http://127.0.0.1:{port}"
    process.end()


async def test_run_publish_and_lag(
    cli: Cli, kafka: KafkaServer, settings: dict[str, str], detector: tuple[Process, str]
) -> None:
    process, url = detector

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    eventually(ready, process.log.read_text)
    by_file, by_rest = paid(timedelta(hours=1)), paid(timedelta(hours=1))
    assert cli("publish", "-", stdin=json.dumps(by_file), **settings).returncode == 0
    answer = httpx.post(f"{url}/v1/events", json=by_rest, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.json()["accepted"] == 1

    wanted = {event["data"]["order_id"] for event in (by_file, by_rest)}
    consumer = AIOKafkaConsumer(
        "headsup.incidents.v1", bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    try:
        while wanted:
            record = await consumer.getone()
            assert PHONE.encode() not in record.value
            wanted.discard(json.loads(record.value)["order_id"])
    finally:
        await consumer.stop()

    def read() -> bool:
        rows = cli.json("lag", **settings)
        return all(r["lag"] == 0 and r["committed"] == r["applied"] for r in rows if r["applied"] is not None)

    eventually(read)
    assert cli.json("doctor", **settings)["ok"] is True
    assert process.stop() == 0
