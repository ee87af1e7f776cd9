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
    st.builds(ORDER.estimate, AT, AT, st.sampled_from(["supplier_late", "order_volume", None])),
    st.builds(ORDER.packed, AT),
    st.builds(lambda at, lines, n: ORDER.shipped(at, lines=lines, tracking_no=f"SF{n}"), AT, LINES, st.integers(1, 2)),
    st.builds(ORDER.scan, AT, st.sampled_from(list(ParcelStatus))),
    st.builds(ORDER.cancelled, AT, LINES),
    st.builds(lambda at, amount: ORDER.refunded(at, amount=amount), AT, st.sampled_from(["40.00", "100.00", "258.00"])),
    st.builds(ORDER.delivered, AT),
)


def play(events: list[Event[Any]], now: float) -> dict[str, Any]:
    """Each event applied by itself, as batches of one: incidents open and close on the way."""
    state = OrderState()
    for event in events:
        fold(state, event)
        state.incident = settle(state, START + hours(now), Policy()).incident
    facts = asdict(state)
    incident = facts.pop("incident")
    facts.pop("look_at")
    if incident is None or not incident["open"]:
        return {**facts, "open": None}
    return {**facts, "open": {k: v for k, v in incident.items() if k not in {"revision", "evidence", "detected_at"}}}


@settings(max_examples=400)
@given(data=st.data(), events=st.lists(ANY_EVENT, max_size=7, unique_by=lambda e: e.id), now=AT)
def test_same_state_and_same_open_incident(data: st.DataObject, events: list[Event[Any]], now: float) -> None:
    history = [ORDER.paid(promise=48, lines=2), *events]
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=5))
    shuffled = data.draw(st.permutations([*history, *repeats]))
    assert play(shuffled, now) == play(history, now)
