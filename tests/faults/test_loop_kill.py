"""Case 1 in the loop: kill -9 of each service at each commit and each provider call of a story; invariant B.

A service dies at *every* pass of the point, life after life, until the story is over; a point that would be met first
thing in each life lets the first pass by, or nothing would ever be done.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

import pytest

from tests.faults.loop_member import AFTER_CALL, BEFORE_CALL
from tests.faults.town import Life, a_town
from tests.support.kafka import KafkaServer

Deadly = Mapping[str, Sequence[Life]]

BATCH: Final = (("BatchRunner._transaction: before commit", 2), ("BatchRunner._transaction: after commit", 1))
PLATFORM: Final = (
    *BATCH,
    ("Relay._send_round: before send", 2),
    ("Relay._send_round: after send", 2),
    ("Relay._send_round: after delete", 1),
    ("Worker._commit: before commit", 1),
    ("Worker._commit: after commit", 1),
)
SENDING: Final = (
    ("Claiming.round: before commit", 2),
    ("Claiming.round: after commit", 1),
    ("Recording.record: before commit", 2),
    ("Recording.record: after commit", 1),
    ("Inbox.receipts: before commit", 2),
    ("Inbox.receipts: after commit", 2),
    ("Inbox.inbound: after commit", 1),
    (AFTER_CALL, 1),
)
LOST: Final[Deadly] = {
    "dispatcher": [(BEFORE_CALL, 1), ("Recording.lapse: before commit", 1), ("Recording.lapse: after commit", 1)],
    "followup": [("Sweeper._slice: before commit", 1), ("Sweeper._slice: after commit", 1)],
}
"""Nothing goes out at all, and those who find that out and tell a person of it die as well."""


def stories() -> Iterator[Deadly]:
    """In each every service dies at a point of its own, so that few stories are enough for all points."""
    turned = PLATFORM[3:] + PLATFORM[:3]
    columns = {"detector": BATCH, "composer": PLATFORM, "followup": turned, "dispatcher": SENDING + PLATFORM}
    for row in zip_longest(*columns.values()):
        yield {service: [life] for service, life in zip(columns, row, strict=True) if life is not None}
    yield LOST


def named(deadly: Deadly) -> str:
    return " + ".join(f"{service} {lives[0][0]}" for service, lives in deadly.items())


@pytest.mark.parametrize("deadly", [*stories()], ids=named)
async def test_crashes_at_every_pass_of_a_point(deadly: Deadly, database: str, tmp_path: Path) -> None:
    async with a_town("local:", database, tmp_path, deadly) as town:
        await town.live_through("T1")
        await town.as_it_should_be("T1")
        log = town.log()
        for service, lives in deadly.items():
            deaths = town.services[service].deaths
            assert set(deaths) == {-9}, f"{service} did not die as it should: {deaths}\n{log[-3000:]}"
            for point, _ in lives[: len(deaths)]:
                assert f"at {point}\n" in log
            assert len(deaths) >= len(lives), f"{service} never came to {lives[len(deaths)]}"


async def test_crashes_on_kafka(own_kafka: KafkaServer, database: str, tmp_path: Path) -> None:
    """The same where a dead member's partitions are taken over when its session has run out: each service dies once."""
    once: dict[str, Sequence[Life]] = {
        service: [("BatchRunner._transaction: after commit", nth), ("", 1)]
        for service, nth in (("detector", 1), ("composer", 2), ("followup", 2))
    }
    once["dispatcher"] = [(AFTER_CALL, 1), ("", 1)]
    async with a_town(f"kafka://{own_kafka.bootstrap}", database, tmp_path, once) as town:
        await town.live_through("T1")
        await town.as_it_should_be("T1")
        assert {name: one.deaths for name, one in town.services.items()} == {name: [-9] for name in once}
