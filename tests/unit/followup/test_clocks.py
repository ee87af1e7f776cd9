"""When somebody is told that a first contact is late, and when an unknown send becomes theirs."""

from datetime import time, timedelta

import pytest

from services.followup.rules.clocks import stages, unknown_due, update_due
from shared.events.stores import QuietHours, StoreConfigured
from tests.support.stories import START

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        (120, [30, 60, 90]),
        (240, [30, 60, 90]),
        (60, [15, 30, 45]),
        (40, [10, 20, 30]),
        (0, [0, 0, 0]),
        (-60, [0, 0, 0]),
    ],
)
def test_stages(due: int, expected: list[int]) -> None:
    found = stages(START, START + due * MINUTE)
    assert [stage.at for stage in found] == [START + m * MINUTE for m in expected]
    assert [stage.urgency for stage in found] == [1, 2, 3]
    assert all(stage.reason for stage in found)
    assert all(stage.at <= max(START, START + due * MINUTE) for stage in found)


@pytest.mark.parametrize(
    ("sent", "due", "expected"),
    [(10, 120, 20), (100, 120, 105), (95, 120, 105), (94, 120, 104), (110, 120, 110), (130, 120, 130), (10, None, 20)],
)
def test_unknown_due(sent: int, due: int | None, expected: int) -> None:
    contact_due_at = None if due is None else START + due * MINUTE
    assert unknown_due(START + sent * MINUTE, contact_due_at) == START + expected * MINUTE


@pytest.mark.parametrize(
    ("ready", "quiet", "due"),
    [
        (0, (22, 8), 2),
        (11, (22, 8), 13),
        (12.5, (22, 8), 26),
        (14, (22, 8), 26),
        (17, (22, 8), 26),
        (23.99, (22, 8), 26),
        (14, None, 16),
        (4, (12, 14), 8),
        (3, (12, 14), 8),
        (6, (12, 14), 8),
    ],
)
def test_update_due(ready: float, quiet: tuple[int, int] | None, due: float) -> None:
    """Hours after START, which is 8:00 in Shanghai."""
    hours = None if quiet is None else QuietHours(start=time(quiet[0]), end=time(quiet[1]))
    store = StoreConfigured(store_id="s", quiet_hours=hours)
    assert update_due(START + timedelta(hours=ready), store) == START + timedelta(hours=due)
