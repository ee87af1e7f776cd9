"""Any order and any repetition of one order's events ends in the same facts and the same open incident."""

from dataclasses import asdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.detector.rules.facts import OrderState, fold
from services.detector.rules.shipping_delay import Policy, settle
from shared.events.envelope import Event
from shared.events.parcels import ParcelStatus
from tests.support.stories import START, Order, hours

ORDER = Order()
LINES = st.sampled_from([None, ("L1",), ("L2",), ("L1", "L2")])
AT = st.integers(min_value=0, max_value=120)

ANY_EVENT: st.SearchStrategy[Event[Any]] = st.one_of(
    st.builds(ORDER.promise, AT, AT),
    st.builds(
        lambda at, ship_at, cause, lines: ORDER.estimate(at, ship_at, cause, lines=lines),
        AT,
        AT,
        st.sampled_from(["supplier_late", "order_volume", None]),
        LINES,
    ),
    st.builds(ORDER.packed, AT, LINES),
    st.builds(lambda at, lines, n: ORDER.shipped(at, lines=lines, tracking_no=f"SF{n}"), AT, LINES, st.integers(1, 2)),
    st.builds(ORDER.scan, AT, st.sampled_from(list(ParcelStatus))),
    st.builds(ORDER.cancelled, AT, LINES),
    st.builds(
        ORDER.refunded,
        AT,
        st.sampled_from([None, "0", "40.00", "100.00", "129.00", "258.00"]),
        LINES,
        st.sampled_from([None, "price_protection"]),
    ),
    st.builds(ORDER.delivered, AT, LINES),
)


def play(events: list[Event[Any]], now: float, silent_until: float | None) -> dict[str, Any]:
    """Each event applied by itself, as batches of one: incidents open and close on the way. In the end all is applied:
    silence up to now is certain."""
    state = OrderState()
    silent = None if silent_until is None else START + hours(min(silent_until, now))
    for event in events:
        fold(state, event)
        state.incident = settle(state, START + hours(now), Policy(), silent).incident
    state.incident = settle(state, START + hours(now), Policy(), START + hours(now)).incident
    facts = asdict(state)
    incident = facts.pop("incident")
    facts.pop("look_at")
    if incident is None or not incident["open"]:
        return {**facts, "open": None}
    return {**facts, "open": {k: v for k, v in incident.items() if k not in {"revision", "evidence", "detected_at"}}}


@settings(max_examples=600)
@given(
    data=st.data(),
    events=st.lists(ANY_EVENT, max_size=7, unique_by=lambda e: e.id),
    now=AT,
    silent_until=st.one_of(st.none(), AT),
)
def test_same_state_and_same_open_incident(
    data: st.DataObject, events: list[Event[Any]], now: float, silent_until: float | None
) -> None:
    history = [ORDER.paid(promise=48, lines=2), *events]
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=5))
    shuffled = data.draw(st.permutations([*history, *repeats]))
    assert play(shuffled, now, silent_until) == play(history, now, now)
