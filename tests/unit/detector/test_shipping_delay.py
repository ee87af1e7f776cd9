"""The rule by tables: what opens, what does not, what it says, when to look again."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from services.detector.rules.announce import announce
from services.detector.rules.facts import Incident, OrderState, fold
from services.detector.rules.shipping_delay import Outcome, Policy, settle
from shared.events.envelope import Event
from shared.events.incidents import How
from shared.events.orders import OrderKind
from shared.events.parcels import ParcelStatus
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
    """Settle with all input applied: up to now, silence is silence."""
    return catch_up(state, at, applied_to=at)


def catch_up(state: OrderState, at: float, *, applied_to: float | None) -> Outcome:
    """Settle while input from after `applied_to` may be unread."""
    outcome = settle(state, START + hours(at), POLICY, None if applied_to is None else after(applied_to))
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

    @pytest.mark.parametrize(
        "refund",
        [
            ORDER.refunded(3, amount="20.00"),
            ORDER.refunded(3, amount="20.00", lines=("L1",)),
            ORDER.refunded(3, amount="129.00", lines=("L1", "L2")),
            ORDER.refunded(3, reason="price_protection"),
            ORDER.refunded(3, amount="258.00", reason="price_protection"),
            ORDER.refunded(3, lines=("L1", "L2"), reason="price_protection"),
            ORDER.refunded(3, amount="0", lines=("L1",)),
        ],
    )
    def test_in_spite_of_a_refund_that_is_none_or_partial(self, refund: Event[Any]) -> None:
        assert opened(play(ORDER.paid(promise=48, lines=2), refund, at=36)[1]).pending == ("L1", "L2")

    @pytest.mark.parametrize(
        ("refunds", "back"),
        [
            ((), "0"),
            ((ORDER.refunded(3, amount="20.00"),), "20.00"),
            ((ORDER.refunded(3, amount="20.00"), ORDER.refunded(3, amount="20.00")), "20.00"),
            ((ORDER.refunded(3, amount="20.00"), ORDER.refunded(4, amount="5", reason="price_protection")), "25.00"),
            ((ORDER.refunded(3, reason="price_protection"),), "0"),
            ((ORDER.refunded(3, amount="9999", reason="price_protection"),), "258.00"),
        ],
    )
    def test_saying_what_went_back_already(self, refunds: tuple[Event[Any], ...], back: str) -> None:
        paid = ORDER.paid(promise=48, lines=2)
        outcome = play(paid, *refunds, at=36)[1]
        assert announce(outcome, paid.data, after(36)).data.facts.refunded == Decimal(back)

    def test_and_says_so_again_as_more_goes_back(self) -> None:
        state, _ = play(ORDER.paid(promise=48), at=36)
        fold(state, ORDER.refunded(37, amount="20.00"))
        outcome = step(state, 38)
        assert outcome.emit == "updated"
        assert outcome.incident is not None
        assert outcome.incident.refunded == 20
        assert step(state, 39).emit is None

    def test_the_rest_of_an_order_of_which_a_line_was_paid_back(self) -> None:
        events = (ORDER.paid(promise=48, lines=2), ORDER.refunded(3, amount="129.00", lines=("L1",)))
        assert opened(play(*events, at=36)[1]).pending == ("L2",)

    def test_an_order_that_was_late_before_it_was_packed(self) -> None:
        events = (ORDER.paid(promise=48), ORDER.estimate(5, ship_at=80), ORDER.packed(6))
        assert opened(play(*events, at=7)[1]).new_date == after(80)


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
            ORDER.refunded(20, amount="129.00", lines=("L1",)),
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

    def test_refunds_of_lines_that_return_all_the_money(self) -> None:
        refund = ORDER.refunded(3, amount="129.00", lines=("L1",))
        events = (ORDER.paid(promise=48, lines=2), refund, ORDER.refunded(4, amount="129.00", lines=("L2",)))
        assert play(*events, at=60)[1].emit is None

    def test_when_parts_left_one_after_the_other_under_one_number(self) -> None:
        parts = (ORDER.shipped(10, lines=("L1",)), ORDER.shipped(20, lines=("L2",)))
        assert play(ORDER.paid(promise=48, lines=2), *parts, at=60)[1].emit is None
        assert play(ORDER.paid(promise=48, lines=2), *reversed(parts), at=60)[1].emit is None

    def test_when_parts_were_delivered_one_after_the_other(self) -> None:
        parts = (ORDER.delivered(10, lines=("L1",)), ORDER.delivered(20, lines=("L2",)))
        assert opened(play(ORDER.paid(promise=48, lines=2), parts[0], at=60)[1]).pending == ("L2",)
        assert play(ORDER.paid(promise=48, lines=2), *parts, at=60)[1].emit is None

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

    def test_packing_does_not_end_it(self) -> None:
        state, _ = play(ORDER.paid(promise=48), ORDER.estimate(40, ship_at=80), at=40)
        fold(state, ORDER.packed(41))
        assert step(state, 41).emit is None
        assert state.incident is not None
        assert state.incident.open
        fold(state, ORDER.shipped(42))
        assert step(state, 42).over is How.SHIPPED

    def test_word_of_a_packing_that_came_first_takes_it_back(self) -> None:
        state, outcome = play(ORDER.paid(promise=48), at=36)
        assert outcome.emit == "opened"
        fold(state, ORDER.packed(35))
        outcome = step(state, 37)
        assert (outcome.emit, outcome.over, outcome.look_at) == ("resolved", How.PACKED, after(48))

    def test_reopening_raises_the_revision(self) -> None:
        state, _ = play(ORDER.paid(promise=48), ORDER.estimate(5, ship_at=80), at=5)
        fold(state, ORDER.estimate(6, ship_at=40))
        assert step(state, 6).emit == "resolved"
        fold(state, ORDER.estimate(7, ship_at=90))
        again = opened(step(state, 7))
        assert (again.revision, again.detected_at) == (3, after(7))


class TestInParts:
    """Lines are named; one incident an order all the same, about what is left of it."""

    def test_an_estimate_of_one_line_delays_the_order(self) -> None:
        state, outcome = play(ORDER.paid(promise=48, lines=2), ORDER.estimate(5, ship_at=80, lines=("L1",)), at=5)
        incident = opened(outcome)
        assert (incident.new_date, incident.pending) == (after(80), ("L1", "L2"))
        fold(state, ORDER.shipped(6, lines=("L1",)))
        outcome = step(state, 6)
        assert (outcome.emit, outcome.over, outcome.look_at) == ("resolved", How.BACK_IN_TIME, after(36))

    def test_the_latest_estimate_of_what_is_left_gives_date_and_cause(self) -> None:
        said = (
            ORDER.estimate(5, ship_at=80, cause="supplier_late", lines=("L1",)),
            ORDER.estimate(6, ship_at=60, cause="order_volume", lines=("L2",)),
        )
        state, outcome = play(ORDER.paid(promise=48, lines=2), *said, at=6)
        incident = opened(outcome)
        assert (incident.new_date, incident.cause, incident.occurred_at) == (after(80), "supplier_late", after(5))
        fold(state, ORDER.cancelled(7, lines=("L1",)))
        outcome = step(state, 7)
        assert outcome.emit == "updated"
        assert outcome.incident is not None
        assert (outcome.incident.new_date, outcome.incident.cause) == (after(60), "order_volume")

    def test_newer_word_about_the_order_holds_for_each_line(self) -> None:
        said = (ORDER.estimate(5, ship_at=80, lines=("L1",)), ORDER.estimate(6, ship_at=40))
        assert play(ORDER.paid(promise=48, lines=2), *said, at=6)[1].emit is None

    def test_a_packed_line_does_not_speak_for_the_others(self) -> None:
        assert not opened(play(ORDER.paid(promise=48, lines=2), ORDER.packed(30, ("L1",)), at=36)[1]).breached

    def test_packed_counts_once_all_that_is_left_is_packed(self) -> None:
        events = (ORDER.packed(30, ("L1",)), ORDER.shipped(31, lines=("L2",)))
        state, outcome = play(ORDER.paid(promise=48, lines=2), *events, at=40)
        assert (outcome.emit, outcome.look_at) == (None, after(48))
        assert opened(step(state, 48)).pending == ("L1",)

    def test_a_confirmation_of_one_line_does_not_speak_for_the_others(self) -> None:
        confirmed = ORDER.estimate(36, ship_at=46, lines=("L1",))
        assert not opened(play(ORDER.paid(promise=48, lines=2), confirmed, at=36)[1]).breached


class TestCatchingUp:
    """The clock is ahead of what is applied: what is missing may be unread."""

    @pytest.mark.parametrize("applied_to", [None, 30])
    @pytest.mark.parametrize(
        ("events", "deadline"),
        [
            ((ORDER.paid(promise=48),), 36),
            ((ORDER.paid(promise=48), ORDER.packed(20)), 48),
            ((ORDER.paid(promise=48), ORDER.estimate(37, ship_at=46)), 46),
            ((ORDER.paid(promise=48), ORDER.estimate(5, ship_at=80)), 80),
            ((ORDER.paid(promise=None),), 36),
        ],
    )
    def test_no_absence_is_concluded(
        self, applied_to: float | None, events: tuple[Event[Any], ...], deadline: float
    ) -> None:
        state = OrderState()
        for event in events:
            fold(state, event)
        outcome = catch_up(state, 100, applied_to=applied_to)
        assert (outcome.emit, outcome.look_at) == (None, after(deadline))
        assert catch_up(state, 100, applied_to=deadline - 0.1).emit is None
        incident = opened(catch_up(state, 100, applied_to=100))
        assert (incident.detected_at, incident.breached) == (after(100), True)

    def test_it_opens_as_the_watermark_gets_to_the_deadline(self) -> None:
        state, _ = play(at=0)
        fold(state, ORDER.paid(promise=48))
        assert not opened(catch_up(state, 100, applied_to=36)).breached
        outcome = catch_up(state, 100, applied_to=47)
        assert (outcome.emit, outcome.look_at) == (None, after(48))
        assert catch_up(state, 100, applied_to=48).emit == "updated"

    def test_an_estimate_later_than_the_promise_opens_at_once(self) -> None:
        state, _ = play(at=0)
        for event in (ORDER.paid(promise=48), ORDER.estimate(5, ship_at=200)):
            fold(state, event)
        incident = opened(catch_up(state, 100, applied_to=None))
        assert (incident.new_date, incident.breached) == (after(200), False)

    @pytest.mark.parametrize("applied_to", [None, 35])
    def test_what_is_open_stays_open(self, applied_to: float | None) -> None:
        """After a restart the watermark is not known for a while; an absence that was certain stays so."""
        state, _ = play(ORDER.paid(promise=48), at=36)
        fold(state, ORDER.scan(37, ParcelStatus.INFO_RECEIVED))
        assert catch_up(state, 40, applied_to=applied_to).emit is None
        assert state.incident is not None
        assert state.incident.open
        fold(state, ORDER.shipped(38))
        assert catch_up(state, 40, applied_to=applied_to).over is How.SHIPPED

    def test_a_date_that_was_told_is_not_replaced_before_it_is_certain(self) -> None:
        state, _ = play(ORDER.paid(promise=48), at=50)
        outcome = catch_up(state, 120, applied_to=60)
        assert (outcome.emit, outcome.look_at) == (None, after(98))
        outcome = catch_up(state, 120, applied_to=98)
        assert outcome.emit == "updated"
        assert outcome.incident is not None
        assert outcome.incident.new_date == after(168)


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
