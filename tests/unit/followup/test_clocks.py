"""When somebody is told that a first contact is late, and when an unknown send becomes theirs."""

from datetime import timedelta

import pytest

from services.followup.rules.clocks import stages, unknown_due
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
