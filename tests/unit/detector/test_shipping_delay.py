"""The rule by tables: what opens, what does not, what it says, when to look again."""

from datetime import datetime
from typing import Any

import pytest

from services.detector.rules.facts import Incident, OrderState, fold
from services.detector.rules.shipping_delay import Outcome, Policy, settle
from shared.events.envelope import Event
from shared.events.incidents import How
from shared.events.orders import OrderKind
from tests.support.stories import START, Order, hours

ORDER = Order()
POLICY = Policy()


def play(*events: Event[Any], at: float) -> tuple[OrderState, Outcome]:
    """Fold all events, then settle once at `at` hours."""
    state = OrderState()
    for event in events:
        fold(state, event)
    return state, step(state, at)


def step(state: OrderState, at: float) -> Outcome:
    outcome = settle(state, START + hours(at), POLICY)
    state.incident = outcome.incident
    return outcome


def opened(outcome: Outcome) -> Incident:
    assert outcome.emit == "opened"
    assert outcome.incident is not None
    return outcome.incident


def after(at: float) -> datetime:
    return START + hours(at)


class TestOpens:
    def test_when_the_estimate_is_later_than_the_promise(self) -> None:
        _, outcome = play(ORDER.paid(promise=48), ORDER.estimate(5, ship_at=80), at=5)
        incident = opened(outcome)
        assert (incident.cause, incident.date_source, incident.new_date) == ("warehouse_backlog", "estimate", after(80))
        assert incident.occurred_at == after(5)
        assert incident.contact_due_at == after(7)
        assert not incident.breached
        assert incident.evidence == ("T1001-paid", "T1001-estimate-5-80")

    @pytest.mark.parametrize(("at", "emit"), [(35.9, None), (36, "opened")])
    def test_twelve_hours_before_the_promise(self, at: float, emit: str | None) -> None:
        _, outcome = play(ORDER.paid(promise=48), at=at)
        assert outcome.emit == emit
        if emit is None:
            assert outcome.look_at == after(36)

    def test_late_discovery_is_breached_and_dates_from_now(self) -> None:
        incident = opened(play(ORDER.paid(promise=48), at=100)[1])
        assert incident.breached
        assert incident.new_date == after(148)
        assert incident.occurred_at == after(36)

    def test_the_fallback_date_counts_from_the_promise_where_that_is_later(self) -> None:
        incident = opened(play(ORDER.paid(promise=48), at=36)[1])
        assert (incident.new_date, incident.date_source) == (after(96), "fallback")

    def test_an_order_without_a_promise_gets_an_assumed_one(self) -> None:
        incident = opened(play(ORDER.paid(2, promise=None), at=38)[1])
        assert incident.assumed
        assert incident.old_date == after(50)

    def test_an_order_paid_close_to_its_promise_is_late_at_payment(self) -> None:
        incident = opened(play(ORDER.paid(40, promise=48), at=40)[1])
        assert incident.occurred_at == after(40)

    def test_a_packed_order_only_when_the_promise_itself_passes(self) -> None:
        state, outcome = play(ORDER.paid(promise=48), ORDER.packed(30), at=40)
        assert (outcome.emit, outcome.look_at) == (None, after(48))
        assert opened(step(state, 48)).breached

    def test_the_rest_of_an_order_of_which_a_part_has_left(self) -> None:
        events = (ORDER.paid(promise=48, lines=2), ORDER.shipped(10, lines=("L1",)))
        assert opened(play(*events, at=36)[1]).pending == ("L2",)

    def test_in_spite_of_a_partial_refund(self) -> None:
        opened(play(ORDER.paid(promise=48), ORDER.refunded(3, amount="20.00"), at=36)[1])


class TestStaysSilent:
    @pytest.mark.parametrize("kind", [OrderKind.PRESALE, OrderKind.MADE_TO_ORDER])
    def test_goods_without_a_promise_that_need_one(self, kind: OrderKind) -> None:
        assert play(ORDER.paid(promise=None, kind=kind), at=500)[1].emit is None

    @pytest.mark.parametrize(
        "end",
        [
            ORDER.shipped(20),
            ORDER.cancelled(20),
            ORDER.refunded(20),
            ORDER.refunded(20, amount="129.00"),
            ORDER.refunded(20, lines=("L1",)),
            ORDER.delivered(20),
            ORDER.scan(20),
        ],
        ids=lambda e: f"{e.type}-{e.id}",
    )
    def test_what_has_ended(self, end: Event[Any]) -> None:
        _, outcome = play(ORDER.paid(promise=48), end, at=60)
        assert (outcome.emit, outcome.look_at) == (None, None)

    def test_before_the_payment_is_known(self) -> None:
        assert play(ORDER.estimate(5, ship_at=80), at=60)[1].emit is None

    def test_when_the_warehouse_confirms_in_the_last_hours(self) -> None:
        state, outcome = play(ORDER.paid(promise=48), ORDER.estimate(37, ship_at=46), at=37)
        assert (outcome.emit, outcome.look_at) == (None, after(46))
        opened(step(state, 46))

    def test_two_partial_refunds_that_make_a_whole(self) -> None:
        events = (ORDER.paid(promise=48), ORDER.refunded(3, amount="100.00"), ORDER.refunded(4, amount="29.00"))
        assert play(*events, at=60)[1].emit is None


class TestGoesOn:
    def test_another_date_updates(self) -> None:
        state, _ = play(ORDER.paid(promise=48), ORDER.estimate(5, ship_at=80), at=5)
        fold(state, ORDER.estimate(9, ship_at=99))
        outcome = step(state, 9)
        assert outcome.emit == "updated"
        assert outcome.incident is not None
        assert (outcome.incident.revision, outcome.incident.new_date) == (2, after(99))
        assert outcome.incident.detected_at == after(5)

    def test_the_same_again_says_nothing(self) -> None:
        state, _ = play(ORDER.paid(promise=48), ORDER.estimate(5, ship_at=80), at=5)
        fold(state, ORDER.estimate(5, ship_at=80))
        assert step(state, 6).emit is None

    def test_the_passing_of_the_promise_updates_once(self) -> None:
        state, outcome = play(ORDER.paid(promise=48), at=36)
        assert outcome.look_at == after(48)
        assert step(state, 48).emit == "updated"
        assert step(state, 49).emit is None

    def test_a_fallback_date_that_passes_is_replaced(self) -> None:
        state, _ = play(ORDER.paid(promise=48), at=50)
        outcome = step(state, 98)
        assert outcome.emit == "updated"
        assert outcome.incident is not None
        assert outcome.incident.new_date == after(98 + 48)

    def test_an_estimate_that_passes_gives_way_to_the_fallback(self) -> None:
        state, outcome = play(ORDER.paid(promise=48), ORDER.estimate(5, ship_at=60), at=50)
        assert outcome.look_at == after(60)
        outcome = step(state, 60)
        assert outcome.incident is not None
        assert (outcome.emit, outcome.incident.date_source) == ("updated", "fallback")

    @pytest.mark.parametrize(
        ("end", "how"),
        [
            (ORDER.shipped(50), How.SHIPPED),
            (ORDER.cancelled(50), How.CANCELLED),
            (ORDER.refunded(50), How.REFUNDED),
            (ORDER.delivered(50), How.DELIVERED),
            (ORDER.estimate(41, ship_at=47), How.BACK_IN_TIME),
            (ORDER.packed(41), How.PACKED),
            (ORDER.promise(41, ship_by=200), How.PROMISE_MOVED),
        ],
        ids=lambda x: str(x) if isinstance(x, How) else "",
    )
    def test_it_ends(self, end: Event[Any], how: How) -> None:
        state, _ = play(ORDER.paid(promise=48), ORDER.estimate(40, ship_at=80), at=40)
        fold(state, end)
        outcome = step(state, 41)
        assert (outcome.emit, outcome.over) == ("resolved", how)
        assert outcome.incident is not None
        assert outcome.incident.revision == 2

    def test_reopening_raises_the_revision(self) -> None:
        state, _ = play(ORDER.paid(promise=48), ORDER.estimate(5, ship_at=80), at=5)
        fold(state, ORDER.estimate(6, ship_at=40))
        assert step(state, 6).emit == "resolved"
        fold(state, ORDER.estimate(7, ship_at=90))
        again = opened(step(state, 7))
        assert (again.revision, again.detected_at) == (3, after(7))


@pytest.mark.parametrize("cause", ["carrier_lost", "courier", "快递", None])
def test_a_parcel_that_is_not_handed_over_never_blames_the_courier(cause: str | None) -> None:
    incident = opened(play(ORDER.paid(promise=48), ORDER.estimate(5, ship_at=80, cause=cause), at=5)[1])
    assert incident.cause == "unknown"


@pytest.mark.parametrize(
    ("paid", "promise", "detected", "due"),
    [
        (0, 96, 84, 86),  # two hours after detection
        (0, 96, 23, 24),  # 24 h after payment falls between
        (0, 30, 17, 18),  # 12 h before the promise falls between
        (0, 96, 24, 26),  # on the edge is not between
    ],
)
def test_contact_is_due(paid: float, promise: float, detected: float, due: float) -> None:
    events = (ORDER.paid(paid, promise=promise), ORDER.estimate(detected, ship_at=300))
    assert opened(play(*events, at=detected)[1]).contact_due_at == after(due)
