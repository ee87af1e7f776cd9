"""How a process's parts end together."""

import asyncio
import base64
import os
from pathlib import Path

import httpx
import pytest

from shared.errors import Halt
from shared.http import create_app
from shared.process import listen, serve
from shared.telemetry import Metrics
from tests.component.cli.support import Cli, Process, eventually
from tests.support.processes import free_port


async def test_a_part_that_fails_ends_the_process() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    with listen(("127.0.0.1", 0)) as bound:
        assert await serve(asyncio.Event(), [], create_app([], Metrics(), []), bound, [broken()]) == 1


async def test_a_stop_ends_all_parts_in_order() -> None:
    ended = asyncio.Event()

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    stop = asyncio.Event()
    with listen(("127.0.0.1", 0)) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        running = asyncio.create_task(serve(stop, [], create_app([], Metrics(), []), bound, [goes_on()]))
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/livez")).status_code == 200
        stop.set()
        assert await running == 0
    assert ended.is_set()


def test_a_port_is_had_once() -> None:
    with listen(("127.0.0.1", 0)) as bound, pytest.raises(Halt, match="--port"):
        listen(("127.0.0.1", bound.getsockname()[1]))


def test_the_detector_alone_on_the_local_bus(cli: Cli, workspace: Path, unique: str, empty_database: str) -> None:
    port = free_port()
    settings = {
        "HEADSUP_DATABASE": empty_database.replace("+asyncpg", ""),
        "HEADSUP_SECRET": base64.b64encode(os.urandom(32)).decode(),
        "HEADSUP_PORT": str(port),
    }
    assert cli("topics", "apply", **settings).returncode == 0  # migrates, for the topics are in the database
    process = Process(cli, workspace / f"detector-{unique}.log", module="services.detector", **settings)
    try:

        def ready() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, process.log.read_text)
        refused = httpx.post(f"http://127.0.0.1:{port}/v1/events", json={}, headers={"Authorization": "Bearer x"})
        assert refused.status_code == 401  # no key is set: nobody comes in
        assert process.stop() == 0
    finally:
        process.end()
