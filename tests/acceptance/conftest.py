"""A shop in embedded mode, on virtual time, over REST alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.shop import KEY, Shop
from tests.component.cli.conftest import cli, folder, start
from tests.component.cli.support import Instance

__all__ = ["cli", "folder", "start"]


@pytest.fixture
def shop(start: Callable[..., Instance], folder: Path) -> Shop:
    return Shop(start(folder, "--clock", "virtual:2026-12-12T08:00:00+08:00", HEADSUP_API_KEY=KEY))
