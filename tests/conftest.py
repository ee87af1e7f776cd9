"""Fixtures of real parts for every test: PostgreSQL, Kafka, unique names."""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from shared.bus import connect
from shared.bus.port import Bus
from shared.telemetry import configure_logging
from tests.support.kafka import KafkaServer, needed_tools
from tests.support.postgres import PostgresServer
from tests.support.requires import PACKAGES, in_ci, missing, require

TEMPLATE = "headsup_template"


def pytest_report_header() -> list[str]:
    """Say at the top what this machine lacks."""
    absent = missing(*PACKAGES)
    if not absent:
        return []
    outcome = "tests that need it FAIL, since CI=true" if in_ci() else "tests that need it are left out"
    return [f"not on this machine: {name}; {outcome}" for name in absent]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Honour `@pytest.mark.requires("kcat")`."""
    for marker in item.iter_markers("requires"):
        require(*marker.args)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Let a native traceback begin in the test's own file rather than in pytest's machinery."""
    if call.excinfo is not None:
        call.excinfo.traceback = call.excinfo.traceback.cut(path=item.path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the bottom how much was left out; `-ra` lists each with its reason."""
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.section("left out", sep="-")
        verdict = "; with CI=true that is a failure" if in_ci() else ""
        terminalreporter.line(f"{skipped} tests; the summary below says why{verdict}")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With CI=true a run that skipped anything has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter is not None and reporter.stats.get("skipped")
    if in_ci() and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """A short-named folder for servers' data that other users may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="headsup-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _runtime_folder(workspace: Path) -> None:
    """The embedded server's wheel wants a private XDG_RUNTIME_DIR; give it one where the machine has none."""
    if not Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")).is_dir():
        folder = workspace / "run"
        folder.mkdir(mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(folder)


@pytest.fixture(scope="session", autouse=True)
def _logging() -> None:
    """As an entry point does; without it tracebacks are drawn with every variable, which takes half a second each."""
    configure_logging(json=True, level="WARNING")


@pytest.fixture
def unique() -> str:
    """A suffix for names of topics, groups and the like that no other test has."""
    return uuid.uuid4().hex[:12]


@pytest.fixture(scope="session")
def postgres(workspace: Path) -> Iterator[PostgresServer]:
    """The session's PostgreSQL server, which no test may stop. It does not wait for the disk."""
    server = PostgresServer(workspace / "postgres", fsync="off", max_connections="200")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> str:
    """The name of a database with every migration applied, to which nobody is connected."""
    from shared.store.migrate import upgrade_all

    url = postgres.create_database(TEMPLATE)
    with ThreadPoolExecutor(1) as aside:  # a loop of its own: the caller's may be running
        aside.submit(asyncio.run, upgrade_all(url)).result()
    return TEMPLATE


@pytest.fixture
def database(postgres: PostgresServer, template: str, unique: str) -> Iterator[str]:
    """The URL of a migrated database that this test has for itself."""
    name = f"test_{unique}"
    yield postgres.create_database(name, template)
    postgres.drop_database(name)


@pytest.fixture
def empty_database(postgres: PostgresServer, unique: str) -> Iterator[str]:
    """The URL of a database without tables that this test has for itself."""
    name = f"empty_{unique}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def own_postgres(workspace: Path, unique: str) -> Iterator[PostgresServer]:
    """A running server that this test may stop, kill and start; it keeps its promises about the disk."""
    server = PostgresServer(workspace / f"pg-{unique}")
    server.start()
    yield server
    server.kill()
    shutil.rmtree(server.data, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(workspace: Path) -> Iterator[KafkaServer]:
    """The session's Kafka broker, which no test may stop. Give topics and groups a `unique` name."""
    require(*needed_tools())
    server = KafkaServer(workspace / "kafka")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_kafka(workspace: Path, unique: str) -> Iterator[KafkaServer]:
    """A running broker that this test may stop, kill and start."""
    require(*needed_tools())
    server = KafkaServer(workspace / f"kafka-{unique}")
    server.start()
    yield server
    server.kill()
    shutil.rmtree(server.data, ignore_errors=True)


@pytest.fixture
async def local_bus(database: str) -> AsyncIterator[Bus]:
    """The local bus in the test's own database."""
    engine = create_async_engine(database)
    found = connect("local:", engine)
    yield found
    await found.close()
    await engine.dispose()


@pytest.fixture(params=["local", "kafka"])
async def either_bus(request: pytest.FixtureRequest, local_bus: Bus) -> AsyncIterator[Bus]:
    """Each kind of bus in turn."""
    if request.param == "local":
        yield local_bus
        return
    server: KafkaServer = request.getfixturevalue("kafka")
    found = connect(f"kafka://{server.bootstrap}")
    yield found
    await found.close()
