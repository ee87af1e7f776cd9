"""`headsup stop` holds, whatever another clock has set before."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.cli.stop import append
from shared.clock import VirtualClock
from shared.events.envelope import decode, event, to_message
from shared.events.stores import SendingStopped
from shared.events.topics import SETTINGS, TOPICS
from shared.process import bus_at
from tests.component.dispatcher.rig import LOCAL, NOON
from tests.support.running import read_topic


@pytest.mark.parametrize("ahead", [0, 5])
async def test_the_newest_word_is_the_one_that_was_given_last(database: str, ahead: float) -> None:
    async with bus_at(LOCAL, database, VirtualClock(NOON)) as bus:
        admin = bus.admin()
        await admin.apply([replace(spec, partitions=2) for spec in TOPICS if spec.name == SETTINGS])
        await admin.close()
        stopped = SendingStopped(store_id="shop-1", by="console")
        other = SendingStopped(store_id="shop-2", by="console")
        # "~" is after every id: of two stamps of one instant the greater one holds.
        at = NOON + timedelta(seconds=ahead)
        producer = bus.producer()
        await producer.send([to_message(event(one, id="~", source="~", time=at)) for one in (stopped, other)])
        await producer.stop()
        await append(bus, stopped.model_copy(update={"stopped": False, "by": "cli"}), NOON)
        events = [decode(record) for record in await read_topic(bus, SETTINGS)]
        mine = [e for e in events if e.data.key == stopped.key]
        newest = max(mine, key=lambda e: e.stamp).data
        assert isinstance(newest, SendingStopped)
        assert newest.by == "cli"
        assert len(mine) == 3
        await append(bus, other.model_copy(update={"stopped": False}), at + timedelta(seconds=1))
        assert len(await read_topic(bus, SETTINGS)) == len(events) + 1
