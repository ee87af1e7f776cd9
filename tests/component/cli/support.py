"""Driving `headsup` as people and machines do: processes, files, HTTP."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx

from shared.bus.port import Message
from shared.clock import SystemClock
from shared.process import bus_at
from tests.support.processes import end

ROOT = Path(__file__).parents[3]
SECONDS = 60.0
PHONE = "13812345678"

T = TypeVar("T")


class Cli:
    """`headsup` in a folder without a `headsup.toml` and an environment without its variables."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADSUP_")}
        return {**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables}

    def command(self, *arguments: str, module: str = "services.cli") -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    def __call__(self, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; at most a minute or two."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.home,
            env=self.environment(variables),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str, **variables: str) -> Any:
        """What a command that succeeds tells."""
        return self._json(0, arguments, variables)

    def failing(self, *arguments: str, **variables: str) -> Any:
        """What a command that ends with 1 tells all the same."""
        return self._json(1, arguments, variables)

    def _json(self, code: int, arguments: Sequence[str], variables: Mapping[str, str]) -> Any:
        done = self(*arguments, "--json", **variables)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)


class Process:
    """A `headsup` process that goes on until it is ended."""

    def __init__(self, cli: Cli, log: Path, *arguments: str, module: str = "services.cli", **variables: str) -> None:
        self.cli = cli
        self.log = log
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                cli.command(*arguments, module=module),
                cwd=cli.home,
                env=cli.environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
            )

    def stop(self) -> int:
        """SIGTERM; the exit code. Raises where the process does not end in good time."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        end(self.process, signal.SIGTERM, seconds=30)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Instance(Process):
    """A running `headsup up --json`, ready for work. Where it was killed, `end` also ends the server it left behind."""

    def __init__(self, cli: Cli, data: Path, *options: str, **variables: str) -> None:
        log = cli.home / f"{data.name}.log"
        super().__init__(cli, log, "up", "--data", str(data), "--port", "0", "--json", *options, **variables)
        self.data = data
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError(f"headsup up ended with {self.process.returncode}:\n{log.read_text()[-3000:]}")
        self.told: dict[str, Any] = json.loads(line)
        self.url: str = self.told["url"]
        self.key: str = self.told.get("key", "")
        key = self.key or variables.get("HEADSUP_API_KEY", "none")
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=90)
        self.eventually(lambda: self.http.get("/readyz").status_code == 200)

    @property
    def database(self) -> str:
        return str(json.loads((self.data / "running.json").read_text())["database"])

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Another command on the same data folder."""
        return self.cli(*arguments, "--data", str(self.data), **more)

    def json(self, *arguments: str) -> Any:
        return self.cli.json(*arguments, "--data", str(self.data))

    def failing(self, *arguments: str) -> Any:
        return self.cli.failing(*arguments, "--data", str(self.data))

    def lag(self) -> list[dict[str, Any]]:
        """The rows of `lag --json`, halted or not."""
        return list(json.loads(self.run("lag", "--json").stdout))

    def publish(self, *events: Mapping[str, Any]) -> Any:
        body = "".join(json.dumps(event) + "\n" for event in events)
        done = self.run("publish", "-", "--json", stdin=body)
        return json.loads(done.stdout)

    def append(self, *messages: Message) -> None:
        """Write to the log as another system would, unchecked."""

        async def send() -> None:
            async with bus_at("local:", self.database, SystemClock()) as bus:
                producer = bus.producer()
                await producer.send(messages)
                await producer.stop()

        asyncio.run(send())

    def query(self, sql: str, *arguments: object) -> list[Any]:
        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.database.replace("+asyncpg", ""))
            try:
                return list(await connection.fetch(sql, *arguments))
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def log_of(self, topic: str) -> list[tuple[dict[str, str], Any]]:
        """Every record of a topic: headers and JSON body."""
        rows = self.query(
            "SELECT r.headers, r.value FROM bus.records r JOIN bus.partitions p USING (log)"
            ' WHERE p.topic = $1 ORDER BY log, "offset"',
            topic,
        )
        return [(dict(json.loads(row["headers"])), json.loads(row["value"])) for row in rows]

    def incidents(self, order_id: str) -> list[tuple[str, Any]]:
        """The types and bodies of this order's incident events, in order."""
        log = self.log_of("headsup.incidents.v1")
        return [(headers["ce_type"], body) for headers, body in log if body["order_id"] == order_id]

    def eventually(self, look: Callable[[], T]) -> T:
        return eventually(look, lambda: self.log.read_text()[-3000:])


def eventually(look: Callable[[], T], log: Callable[[], str] = str) -> T:
    """The first true answer; polls for up to a minute."""
    deadline = time.monotonic() + SECONDS
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"this did not come true within {SECONDS:.0f} s\n{log()}")
        time.sleep(0.1)


def paid(promise: timedelta, at: datetime | None = None, **members: Any) -> dict[str, Any]:
    """A structured `order.paid.v1` of a new order, paid at `at` (now) and promised `promise` after that."""
    at = at or datetime.now(UTC)
    data = {
        "order_id": f"o-{uuid.uuid4().hex[:12]}",
        "store_id": "s1",
        "customer": {"id": "c1", "nickname": "小明", "phone": PHONE},
        "lines": [{"sku": "a", "name": "A", "variant": "", "quantity": 1, "unit_price": "9.00"}],
        "total": "9.00",
        "currency": "CNY",
        "paid_at": at.isoformat(),
        "promise_ship_by": (at + promise).isoformat(),
    }
    return {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "/shop",
        "type": "order.paid.v1",
        "time": at.isoformat(),
        "data": {**data, **members},
    }


def garbage(count: int, key: str) -> Sequence[Message]:
    """Records that no reader can apply, all on one partition of the orders' topic."""
    headers = (("content-type", b"application/json"), ("x-from", b"a broken producer"))
    return [Message("headsup.orders.v1", key.encode(), f"{PHONE} no JSON {n}".encode(), headers) for n in range(count)]
