"""The broker and the database of one run: real ones, on loopback, in a throw-away folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from shared.bus import connect
from shared.bus.port import TopicSpec
from shared.events import topics
from shared.store.migrate import upgrade_all
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer

POSTGRES: Final = {
    "fsync": "on",
    "shared_buffers": "512MB",
    "effective_cache_size": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "100",
}
"""As on a small server in production. Everything else is PostgreSQL's default; synchronous_commit above all."""

TOPICS: Final = (TopicSpec(topics.ORDERS, 6), TopicSpec(topics.TRACKING, 2), TopicSpec(topics.INCIDENTS, 6))
"""Tracking has a third of the orders' events and a third of their partitions, so that a backlog of both is read at the
pace at which it was written: a scan mostly after its order, as in life."""

INPUTS: Final = (topics.ORDERS, topics.TRACKING)
TEMPLATE: Final = "bench_template"


@dataclass(frozen=True, slots=True)
class Servers:
    kafka: KafkaServer
    postgres: PostgresServer

    @property
    def bus_url(self) -> str:
        return f"kafka://{self.kafka.bootstrap}"

    def database(self, name: str, template: str = TEMPLATE) -> str:
        """A new database with every migration applied, or a copy of another; the write-ahead log flushed."""
        self.postgres.drop_database(name)
        url = self.postgres.create_database(name, template)
        self.postgres.psql("CHECKPOINT")
        return url

    def cpu_seconds(self) -> tuple[float, float]:
        """Used so far by PostgreSQL with its backends, and by Kafka."""
        root = psutil.Process(self.postgres.pid)
        postgres = sum(_cpu(p) for p in root.children(recursive=True)) + _cpu(root, ended=True)
        return postgres, _cpu(psutil.Process(self.kafka.pid))


def _cpu(process: psutil.Process, ended: bool = False) -> float:
    """User and system seconds; with those of its children that have ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    own = float(times.user + times.system)
    return own + float(times.children_user + times.children_system) if ended else own


@contextmanager
def running() -> Iterator[Servers]:
    """Both servers, ended and their data removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="headsup-bench-"))
    folder.chmod(0o755)
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    servers = Servers(KafkaServer(folder / "kafka"), PostgresServer(folder / "postgres", **POSTGRES))
    try:
        servers.postgres.start()
        servers.kafka.start()
        yield servers
    finally:
        servers.kafka.kill()
        servers.postgres.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def prepare(servers: Servers) -> None:
    """Topics, and a migrated database to copy from."""
    await upgrade_all(servers.postgres.create_database(TEMPLATE))
    admin = connect(servers.bus_url).admin()
    try:
        await admin.apply(TOPICS)
    finally:
        await admin.close()
