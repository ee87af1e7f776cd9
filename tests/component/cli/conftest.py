"""Real `headsup` processes on folders and databases of their own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.component.cli.support import Cli, Instance


@pytest.fixture
def folder(workspace: Path, unique: str) -> Iterator[Path]:
    """A data folder for this test that does not exist yet."""
    path = workspace / f"data-{unique}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def cli(workspace: Path) -> Cli:
    """The command, run in an empty folder and without any setting."""
    home = workspace / "home"
    home.mkdir(exist_ok=True)
    return Cli(home)


@pytest.fixture
def start(cli: Cli) -> Iterator[Callable[..., Instance]]:
    """Start instances that end with the test."""
    started: list[Instance] = []

    def begin(data: Path, *options: str, **variables: str) -> Instance:
        started.append(Instance(cli, data, *options, **variables))
        return started[-1]

    yield begin
    for instance in started:
        instance.end()


@pytest.fixture(scope="module")
def instance(cli: Cli, workspace: Path, request: pytest.FixtureRequest) -> Iterator[Instance]:
    """A `headsup up` that the module's tests share; none may stop it or halt a partition."""
    data = workspace / f"shared-{request.module.__name__.rpartition('.')[2]}"
    running = Instance(cli, data)
    yield running
    running.end()
    shutil.rmtree(data, ignore_errors=True)
