"""Many orders' lives, and the oracle that says what a detector must have made of them."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from services.detector.rules.facts import OrderState, fold
from services.detector.rules.shipping_delay import Policy, settle
from shared.bus.port import Message
from shared.events.envelope import Event, to_message
from shared.events.orders import OrderShipped
from tests.support.stories import START, Order, hours

READ_AT, LATER = START + hours(6), START + hours(37)
"""All events happen before the first instant; at the second one silence has become lateness."""


@dataclass
class Story:
    """Events by the topic that they go to: orders first, then tracking. `spoilt` can never be applied."""

    orders: list[Event[Any]] = field(default_factory=list)
    tracking: list[Event[Any]] = field(default_factory=list)
    spoilt: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> Sequence[Event[Any]]:
        return (*self.orders, *self.tracking)

    def messages(self, topics: Sequence[str], seed: int = 7) -> list[Message]:
        """Orders' events in the order they happened, mixed across orders; then a row of what is spoilt, on one
        partition; then the scans."""
        chance = random.Random(seed)
        mixed = sorted(self.orders, key=lambda e: (e.time, chance.random()))
        half = len(mixed) // 2
        spoilt = [Message(topics[0], b"spoilt", body, (("ce_type", b"order.paid.v1"),)) for body in self.spoilt]
        return [
            *(_to(topics[0], e) for e in mixed[:half]),
            *spoilt,
            *(_to(topics[0], e) for e in mixed[half:]),
            *(_to(topics[-1], e) for e in self.tracking),
        ]


def _to(topic: str, event: Event[Any]) -> Message:
    found = to_message(event)
    return Message(topic, found.key, found.value, found.headers)


def a_story(unique: str, orders: int, spoilt: int = 0) -> Story:
    """Eight kinds of lives, over and over."""
    story = Story(spoilt=[b"{spoilt %d" % n for n in range(spoilt)])
    for n in range(orders):
        order = Order(f"{n % 8}-{n}-{unique}")
        story.orders += _life(order, n % 8)
        if n % 8 == 1:
            story.tracking += [order.scan(at, named=False) for at in (5.5, 5.2)]
    return story


def _life(order: Order, kind: int) -> list[Event[Any]]:
    paid = order.paid(promise=48)
    match kind:
        case 0:
            return [paid, order.estimate(5, ship_at=80)]
        case 1:
            return [paid, order.shipped(5)]
        case 2:
            return [paid]
        case 3:
            return [paid, order.estimate(4, ship_at=80), order.cancelled(5)]
        case 4:
            return [order.estimate(4, ship_at=80)]
        case 5:
            return [paid, order.estimate(3, ship_at=80), order.estimate(5, ship_at=40)]
        case 6:
            return [order.paid(promise=48, lines=2), order.shipped(5, lines=("L1",))]
        case _:
            return [order.paid(promise=30)]


Told = tuple[str, ...]
"""What was emitted about an order, in order: `opened`, `updated`, or how it was resolved."""

_FLICKERED = ("opened", "back_in_time")
"""Opened and closed while reading: by a batch that ends between the two words, or not at all."""

_TOLD: Mapping[int, tuple[set[Told], set[Told]]] = {
    0: ({("opened",)}, {("opened",)}),
    1: ({()}, {()}),
    2: ({()}, {("opened",)}),
    3: ({(), ("opened", "cancelled")}, {(), ("opened", "cancelled")}),
    4: ({()}, {()}),
    5: ({(), _FLICKERED}, {("opened",), (*_FLICKERED, "opened")}),
    6: ({()}, {("opened",)}),
    7: ({()}, {("opened",)}),
}
"""By kind of life, written down by hand: what may have been told up to READ_AT, and up to LATER. Where two lie side by
side, it depends on where a batch ends."""


def may_be_told(order_id: str, until: datetime) -> set[Told] | None:
    """All that a right detector can have emitted by then about an order of `a_story`; None for other orders."""
    kind, dash, _ = order_id.partition("-")
    if not dash or not kind.isdigit():
        return None
    read, later = _TOLD[int(kind)]
    return later if until >= LATER else read


def oracle(events: Iterable[Event[Any]], *instants: datetime) -> Mapping[str, OrderState]:
    """Each order's facts folded by the pure rules, then settled at these instants one after the other."""
    known = list(events)
    numbers = {e.data.tracking_no: e.data.order_id for e in known if isinstance(e.data, OrderShipped)}
    states: dict[str, OrderState] = {}
    for event in known:
        order_id = getattr(event.data, "order_id", None) or numbers.get(getattr(event.data, "tracking_no", ""))
        if order_id is not None:
            fold(states.setdefault(order_id, OrderState()), event)
    for instant in instants:
        for state in states.values():
            outcome = settle(state, instant, Policy(), instant)
            state.incident, state.look_at = outcome.incident, outcome.look_at
    return states


def comparable(state: OrderState) -> dict[str, Any]:
    """What must be the same however the events were cut into batches: all facts, when to look again, and the open
    incident without its revision. An incident that opened and closed on the way may be there or not."""
    found = asdict(state)
    incident = found.pop("incident")
    found["open"] = {k: v for k, v in incident.items() if k != "revision"} if incident and incident["open"] else None
    return found
