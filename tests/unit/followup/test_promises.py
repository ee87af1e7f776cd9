"""The ledger: what each promise is at a time, and why."""

from datetime import datetime
from typing import Any

import pytest

from services.followup.rules import promises
from services.followup.rules.facts import Case, Entry
from services.followup.rules.fold import ORDER_EVENTS, fold, fold_order
from services.followup.rules.order import Order
from shared.events.envelope import Event
from shared.events.incidents import How
from shared.events.notices import PromiseKind
from tests.support.cases import CaseStory
from tests.support.stories import START, hours

S = CaseStory()


@pytest.mark.parametrize(
    ("made", "due", "expected"),
    [(0, 1, 0.75), (0, 24, 18), (0, 80, 68), (0, 48, 36), (0, 0.5, 0.5 - 1 / 6), (0, 0.1, 0), (5, 5, 5)],
)
def test_at_risk_from(made: float, due: float, expected: float) -> None:
    found = promises.at_risk_from(START + hours(made), START + hours(due))
    assert abs((found - START - hours(expected)).total_seconds()) < 1e-3


def ledger(now: float, *events: Event[Any], choice: str | None = None) -> dict[str, Entry]:
    """The entries by kind after these events; the customer chose by `choice` at 1 h."""
    from services.followup.rules.case import settle

    case, order = Case(S.case_id), Order()
    history = [S.opened(), S.composed(0.01), S.sent(0.2), *([S.reply(1, choice)] if choice else [])]
    for event in history:
        fold(case, event, START + hours(1))
        settle(case, order, START + hours(1), True)
    for event in events:
        if isinstance(event.data, ORDER_EVENTS):
            fold_order(order, event)
        fold(case, event, START + hours(now))
    promises.settle(case, order, START + hours(now))
    return {str(entry.kind): entry for entry in case.ledger.values()}


@pytest.mark.parametrize(
    ("choice", "events", "now", "kind", "state"),
    [
        (None, (), 2, "ship_by", "open"),
        (None, (), 68, "ship_by", "at_risk"),
        (None, (), 80, "ship_by", "broken"),
        (None, (S.order.shipped(79),), 81, "ship_by", "kept"),
        (None, (S.order.shipped(81),), 82, "ship_by", "broken"),
        (None, (S.order.shipped(60, lines=("L1",)),), 81, "ship_by", "kept"),
        (None, (S.order.shipped(60, lines=("other",)),), 81, "ship_by", "broken"),
        (None, (S.resolved(60, How.SHIPPED),), 60, "ship_by", "open"),
        (None, (S.resolved(60, How.SHIPPED),), 61, "ship_by", "kept"),
        (None, (S.order.cancelled(3),), 4, "ship_by", "void"),
        (None, (S.order.refunded(3),), 4, "ship_by", "void"),
        (None, (S.order.refunded(3, amount="10.00"),), 4, "ship_by", "open"),
        (None, (S.order.refunded(3, amount="129.00"),), 4, "ship_by", "void"),
        ("2", (), 1.5, "refund", "open"),
        ("2", (), 1.5, "ship_by", "void"),
        ("2", (), 1.8, "refund", "at_risk"),
        ("2", (), 2, "refund", "broken"),
        ("2", (S.remedied(1.9),), 2.5, "refund", "kept"),
        ("2", (S.remedied(2.1),), 2.5, "refund", "broken"),
        ("2", (S.remedy_failed(1.2),), 1.5, "refund", "open"),
        ("2", (S.order.refunded(1.5),), 2.5, "refund", "kept"),
        ("2", (S.order.cancelled(1.5),), 1.6, "refund", "open"),
        ("1", (), 2, "coupon", "open"),
        ("1", (S.remedied(3),), 4, "coupon", "kept"),
        ("1", (S.remedied(3),), 4, "ship_by", "open"),
        ("1", (), 25, "coupon", "broken"),
        ("1", (S.order.refunded(3),), 4, "coupon", "void"),
    ],
)
def test_state(choice: str | None, events: tuple[Event[Any], ...], now: float, kind: str, state: str) -> None:
    entry = ledger(now, *events, choice=choice)[kind]
    assert entry.state == state, entry.reason
    assert bool(entry.settled_at) is (state in {"kept", "broken", "void"})
    assert entry.reason or state == "open"


def test_a_settled_promise_stays_as_it_is() -> None:
    case, order = Case(S.case_id), Order()
    for event in (S.opened(), S.composed(0.01), S.sent(0.2)):
        fold(case, event, START)
    assert promises.settle(case, order, START + hours(80))[0]
    fold_order(order, S.order.shipped(79))
    assert promises.settle(case, order, START + hours(81)) == ([], None)


def test_a_persons_tick_keeps_a_promise() -> None:
    case, order = Case(S.case_id), Order()
    for event in (S.opened(), S.composed(0.01), S.sent(0.2)):
        fold(case, event, START)
    due: datetime = START + hours(80)
    case.ticked[promises.promise_id(S.case_id, PromiseKind.SHIP_BY, due)] = "anna"
    promises.settle(case, order, START + hours(70))
    [entry] = case.ledger.values()
    assert (entry.state, entry.reason) == ("kept", "anna says so")
