"""Ramp, back-off, waves, routing, and the order's view."""

import random
from datetime import timedelta
from typing import Any

import pytest

from services.dispatcher.rules import backoff, ramp, routing, wave
from services.dispatcher.rules.backoff import Backoff
from services.dispatcher.rules.ramp import Ramp
from services.dispatcher.rules.routing import Asked
from services.dispatcher.rules.state import OrderView, Step, fold_order
from shared.events.envelope import event
from shared.events.notices import Purpose
from shared.events.orders import CustomerContacted, OrderRefundRequested
from shared.events.replies import opts_out
from shared.events.stores import Wave
from tests.component.dispatcher.rig import NOON, hours
from tests.support.stories import Order
from tests.unit.dispatcher.cases import notice


@pytest.mark.parametrize(("sent", "percent"), [(0, 0), (19, 0), (20, 5), (99, 5), (100, 25), (499, 25), (500, 100)])
def test_the_ramp_has_stages(sent: int, percent: int) -> None:
    assert ramp.share(sent, Ramp()) == percent


def test_a_lot_is_stable_and_fair() -> None:
    ids = [f"notice-{n}" for n in range(4000)]
    going = [i for i in ids if ramp.goes(i, 50, Ramp())[0]]
    assert 0.03 < len(going) / len(ids) < 0.07
    assert going == [i for i in ids if ramp.goes(i, 50, Ramp())[0]]
    # Whoever goes at 5 % goes at 25 % too.
    assert set(going) <= {i for i in ids if ramp.goes(i, 200, Ramp())[0]}
    assert ramp.goes(ids[0], 3, Ramp())[1] == "the first 20 of a template version are released by a person; 3 have gone"


def test_backoff_doubles_heeds_the_provider_and_has_an_end() -> None:
    plain = Backoff()
    assert [backoff.delay(n, None, False, plain).total_seconds() for n in (1, 2, 3, 7, 400)] == [1, 2, 4, 60, 60]
    assert backoff.delay(1, 90.0, False, plain) == timedelta(seconds=90)
    assert backoff.delay(1, None, True, plain) == timedelta(seconds=300)


def test_it_gives_up_at_the_limit_or_after_its_patience() -> None:
    assert backoff.gives_up_at(notice(), Step(first_at=NOON), Backoff()) == NOON + hours(2)
    assert backoff.gives_up_at(notice(), Step(first_at=NOON + hours(5)), Backoff()) == NOON + hours(6)
    assert backoff.gives_up_at(notice(Purpose.NEXT_STEP), Step(first_at=NOON), Backoff()) == NOON + hours(1)


@pytest.mark.parametrize(
    ("first", "open_orders", "unusual"),
    [(199, 1000, False), (200, 1000, True), (200, 10_000, False), (301, 10_000, True), (200, 0, True)],
)
def test_a_wave_is_many_and_a_large_share(first: int, open_orders: int, unusual: bool) -> None:
    found, words = wave.breaks(first, open_orders, Wave())
    assert found is unusual
    assert str(first) in words


def test_what_came_before_a_release_counts_no_more() -> None:
    assert wave.since(NOON, None) == NOON - hours(1)
    assert wave.since(NOON, NOON - hours(0.5)) == NOON - hours(0.5)
    assert wave.since(NOON, NOON - hours(5)) == NOON - hours(1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        (" 2 。", 2),
        ("①", 1),
        ("２", 2),
        ("一", 1),
        ("选2", 2),
        ("方案二", 2),
        ("我选 3 谢谢", 3),
        ("1和2", None),
        ("等一下", None),
        ("13812345678", None),
        ("退款", None),
        ("", None),
    ],
)
def test_a_digit_in_its_usual_forms(text: str, number: int | None) -> None:
    assert routing.number_of(text) == number


@pytest.mark.parametrize(
    ("text", "out"),
    [
        *((word, True) for word in ("TD", "td。", "退订", "拒收", "R", "stop", " T ", "Unsubscribe!", "别再发短信了")),
        *((word, False) for word in ("2", "退款", "我等", "")),
    ],
)
def test_words_for_opting_out(text: str, out: bool) -> None:
    assert opts_out(text) is out


def asked(
    name: str, *numbers: int, at: float = 0, purpose: Purpose = Purpose.FIRST_CONTACT, incident: str = ""
) -> Asked:
    return Asked(name, incident or f"i-{name}", f"o-{name}", "shop-1", purpose, frozenset(numbers), NOON + hours(at))


def test_a_message_goes_to_the_notice_whose_digit_it_names_else_to_the_newest() -> None:
    both = [asked("a", 1, 2), asked("b", 3, 4, at=1)]
    for text, first in (("2", "a"), ("4", "b"), ("9", "b"), ("你好", "b")):
        found = routing.route(text, both)
        assert found is not None
        assert found.notice.notice_id == first
        assert sorted(found.incident_ids) == ["i-a", "i-b"]
    thread = routing.route("4", both, "a")
    assert thread is not None
    assert thread.incident_ids == ("i-a", "i-b")
    assert routing.route("1", []) is None


def test_of_one_incident_only_the_last_question_counts() -> None:
    old = asked("a", 1, 2, incident="i")
    score = asked("s", at=2, purpose=Purpose.SATISFACTION, incident="i")
    found = routing.route("5", [old, score])
    assert found is not None
    assert (found.notice.notice_id, found.incident_ids) == ("s", ("i",))


def test_the_orders_view_is_the_same_in_any_order_of_events() -> None:
    order = Order()
    events = [
        order.paid(lines=3),
        order.shipped(5, tracking_no="A", lines=("L1",)),
        order.cancelled(6, lines=("L2",)),
        order.refunded(7, amount="100.00"),
        order.refunded(8, lines=("L3",)),
    ]
    views = set()
    for _ in range(20):
        shuffled = [*events, *random.sample(events, 3)]
        random.shuffle(shuffled)
        view = OrderView()
        for one in shuffled:
            fold_order(view, one)
        views.add((view.over, view.open, view.store_id, str(view.total)))
    assert views == {("cancelled", False, "shop-1", "387.00")}


def test_only_what_the_customer_asked_about_this_trouble_counts() -> None:
    order, view = Order(), OrderView()
    fold_order(view, order.paid())
    occurred = NOON + hours(10)

    def says(kind: type[Any], at: float) -> None:
        fold_order(view, event(kind(order_id="T1"), id=f"{kind}{at}", source="shop", time=NOON + hours(at)))

    says(CustomerContacted, 9)
    assert (view.asked_first(occurred), view.asked_last) == (None, NOON + hours(9))
    for at in (12, 11, 12):
        says(CustomerContacted, at)
    assert (view.asked_first(occurred), view.asked_last) == (NOON + hours(11), NOON + hours(12))
    says(OrderRefundRequested, 8)
    assert view.asked_first(occurred) == NOON + hours(8)


def test_a_partial_refund_ends_nothing_and_partial_refunds_add_up_once() -> None:
    order, view = Order(), OrderView()
    for one in (order.paid(), order.refunded(1, amount="100.00"), order.refunded(1, amount="100.00")):
        fold_order(view, one)
    assert (view.over, view.open) == (None, True)
    fold_order(view, order.refunded(2, amount="29.00"))
    assert (view.over, view.open) == ("refunded", False)
