"""From which moment on a store is live."""

from datetime import datetime, timedelta

import pytest

from services.composer.bodies import begun
from shared.events.incidents import Scenario
from shared.events.stores import Mode, default_store
from tests.unit.composer.facts import NOW

DELAY, STOCK = Scenario.SHIPPING_DELAY, Scenario.OUT_OF_STOCK
EARLIER, LATER = NOW - timedelta(days=9), NOW + timedelta(days=9)


@pytest.mark.parametrize(
    ("before", "modes", "named", "live_from"),
    [
        (None, {DELAY: Mode.SHADOW}, None, None),
        (None, {DELAY: Mode.APPROVE}, None, None),
        (None, {DELAY: Mode.RAMP}, None, NOW),
        (None, {DELAY: Mode.LIVE}, None, NOW),
        (None, {DELAY: Mode.LIVE}, LATER, LATER),
        (({DELAY: Mode.APPROVE}, None), {DELAY: Mode.LIVE}, None, NOW),
        (({DELAY: Mode.RAMP}, EARLIER), {DELAY: Mode.LIVE}, None, EARLIER),
        (({DELAY: Mode.OFF}, EARLIER), {DELAY: Mode.LIVE}, None, EARLIER),
        (({DELAY: Mode.LIVE}, EARLIER), {DELAY: Mode.LIVE}, LATER, LATER),
        (({DELAY: Mode.LIVE}, None), {DELAY: Mode.RAMP}, None, None),
        (({DELAY: Mode.LIVE}, None), {DELAY: Mode.LIVE, STOCK: Mode.RAMP}, None, NOW),
    ],
)
def test_when_a_store_went_live(
    before: tuple[dict[Scenario, Mode], datetime | None] | None,
    modes: dict[Scenario, Mode],
    named: datetime | None,
    live_from: datetime | None,
) -> None:
    known = default_store("shop-1", modes=before[0], live_from=before[1]) if before else None
    put = default_store("shop-1", name="n", modes=modes, live_from=named)
    found = begun(put, known, NOW)
    assert found.live_from == live_from
    assert found.model_copy(update={"live_from": named}) == put
