"""Case 1 in the loop: kill -9 of each service at each commit and each provider call of a story; invariant B.

A service dies at *every* pass of the point, life after life, until the story is over; a point that would be met first
thing in each life lets the first pass by, or nothing would ever be done.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.faults.loop_member import AFTER_CALL, BEFORE_CALL
from tests.faults.town import a_town
from tests.support.kafka import KafkaServer
from tests.support.running import eventually

BATCH: Final = ("BatchRunner._transaction: before commit", 2), ("BatchRunner._transaction: after commit", 1)
RELAY: Final = (
    ("Relay._send_round: before send", 2),
    ("Relay._send_round: after send", 2),
    ("Relay._send_round: after delete", 1),
)
GROUP: Final = ("Worker._commit: before commit", 2), ("Worker._commit: after commit", 2)
DISPATCHER: Final = (
    ("Claiming.round: before commit", 2),
    ("Claiming.round: after commit", 1),
    ("Recording.record: before commit", 2),
    ("Recording.record: after commit", 1),
    ("Inbox.receipts: before commit", 2),
    ("Inbox.receipts: after commit", 1),
    ("Inbox.inbound: after commit", 1),
    (BEFORE_CALL, 1),
    (AFTER_CALL, 1),
)
POINTS: Final = (
    *(("detector", *point) for point in BATCH),
    *((service, *point) for service in ("composer", "dispatcher", "followup") for point in (*BATCH, *RELAY, *GROUP)),
    *(("dispatcher", *point) for point in DISPATCHER),
)


@pytest.mark.parametrize(("service", "point", "nth"), POINTS)
async def test_a_crash_at_every_pass_of_a_point(
    service: str, point: str, nth: int, database: str, tmp_path: Path
) -> None:
    async with a_town("local:", database, tmp_path, **{service: [(point, nth)]}) as town:
        await town.live_through("T1")
        await town.as_it_should_be("T1")
        victim = town.services[service]
        assert victim.deaths, f"it never came to {point}"
        assert set(victim.deaths) == {-9}, town.log()[-3000:]
        assert town.log().count(f"at {point}\n") == len(victim.deaths)
