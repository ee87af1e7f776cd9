"""A shop in embedded mode, on virtual time, over REST alone.

The stories of a module share one installation, as shops do; each has a store and a phone of its own, and begins at ten
in the morning.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.shop import KEY, Shop
from tests.component.cli.conftest import cli
from tests.component.cli.support import Cli, Instance

__all__ = ["cli"]

CLOCK = "virtual:2026-12-12T08:00:00+08:00"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def installation(cli: Cli, workspace: Path, request: pytest.FixtureRequest) -> Iterator[Instance]:
    data = workspace / f"stories-{request.module.__name__.rpartition('.')[2]}"
    running = Instance(cli, data, "--clock", CLOCK, HEADSUP_API_KEY=KEY)
    yield running
    running.end()
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def shop(installation: Instance) -> Shop:
    number = next(_numbers)
    found = Shop(installation, f"shop-{number}", f"1381234{number:04}")
    found.until(hour=10)
    return found
