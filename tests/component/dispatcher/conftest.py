"""A dispatcher for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.component.dispatcher.rig import Rig, at_work


@pytest.fixture
async def rig(database: str) -> AsyncIterator[Rig]:
    async with at_work(database) as rig:
        yield rig
