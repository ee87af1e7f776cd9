"""One composer for each test, on a clock that stands still."""

from collections.abc import AsyncIterator

import pytest

from shared.clock import VirtualClock
from tests.support.composing import Composing, composer_at_work
from tests.unit.composer.facts import NOW


@pytest.fixture
async def composer(database: str) -> AsyncIterator[Composing]:
    async with composer_at_work(database, VirtualClock(NOW)) as at_work:
        yield at_work
