"""The detector's shell: a batch of events in; load, fold, decide, save, emit.

It keeps, for each order, what the rules need (see rules/facts.py). An order is known from its first event on, whichever
that is; nothing is decided before its payment is there. A scan that names no order waits under its tracking number
until an order does.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from services.detector.rules.announce import announce
from services.detector.rules.facts import OrderState, Parcel, fold, fold_parcel, merge, parcel_of
from services.detector.rules.shipping_delay import Policy, settle
from shared.events.envelope import Event, to_message
from shared.events.orders import OrderPaid, OrderShipped
from shared.events.parcels import ParcelScanned
from shared.store.timers import Due
from shared.store.unit import UnitOfWork


class Orders(Protocol):
    """What the detector keeps. All calls run inside the unit's transaction."""

    async def load(self, unit: UnitOfWork, order_ids: Sequence[str], wait: bool) -> dict[str, OrderState]:
        """Lock these orders in the order given (sorted by the caller) and return the ones that exist. Without `wait`
        the ones that others hold are left out; with it, in a careful unit, all exist afterwards."""
        ...

    async def save(
        self, unit: UnitOfWork, states: Mapping[str, OrderState], known: Collection[str], payments: Mapping[str, bytes]
    ) -> None:
        """Write these states; `payments` are the texts to keep for orders whose payment is new. Raises `Raced` where an
        order that is not in `known` exists by now."""
        ...

    async def payments(self, unit: UnitOfWork, order_ids: Sequence[str]) -> Mapping[str, bytes]:
        """The kept payment texts of these orders."""
        ...

    async def link(
        self, unit: UnitOfWork, named: Mapping[str, str], loose: Mapping[str, Parcel]
    ) -> Mapping[str, tuple[str, Parcel]]:
        """Tracking numbers: `named` gives them their orders, `loose` brings scans whose order is not said. Returns, for
        numbers whose order is known and that have scans to apply, that order and the scans; keeps the other scans."""
        ...


class Sealing(Protocol):
    def sealed(self, paid: OrderPaid) -> OrderPaid:
        """The order without readable addresses."""
        ...


class Detector:
    """Guarantees: applying an event twice changes nothing; any order of one order's events ends in the same state and
    the same open incident; an incident is emitted in the transaction that opened it."""

    def __init__(self, orders: Orders, sealing: Sealing, policy: Policy) -> None:
        self._orders = orders
        self._sealing = sealing
        self._policy = policy

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        """Apply one partition's events, each order's in their sequence."""
        by_order: defaultdict[str, list[Event[Any]]] = defaultdict(list)
        named: dict[str, str] = {}
        loose: dict[str, Parcel] = {}
        for event in events:
            data = event.data
            order_id = getattr(data, "order_id", None)
            if order_id is not None:
                by_order[order_id].append(event)
                if isinstance(data, OrderShipped):
                    named[data.tracking_no] = order_id
            elif isinstance(data, ParcelScanned):
                loose[data.tracking_no] = merge(loose.get(data.tracking_no), parcel_of(data, event.stamp))
        arrived: Mapping[str, tuple[str, Parcel]] = {}
        if named or loose:
            with unit.measure("load"):
                arrived = await self._orders.link(unit, named, loose)
        await self._decide(unit, by_order, arrived)

    async def _decide(
        self,
        unit: UnitOfWork,
        by_order: Mapping[str, Sequence[Event[Any]]],
        arrived: Mapping[str, tuple[str, Parcel]],
    ) -> None:
        order_ids = sorted({*by_order, *(order_id for order_id, _ in arrived.values())})
        if not order_ids:
            return
        with unit.measure("load"):
            states = await self._orders.load(unit, order_ids, wait=True)
        known = frozenset(states)
        payments: dict[str, bytes] = {}
        with unit.measure("decide"):
            for order_id in order_ids:
                state = states.get(order_id)
                if state is None:
                    state = states[order_id] = OrderState()
                for event in by_order.get(order_id, ()):
                    if fold(state, event):
                        payments[order_id] = (
                            self._sealing.sealed(event.data).model_dump_json(exclude_none=True).encode()
                        )
            for tracking_no, (order_id, parcel) in arrived.items():
                fold_parcel(states[order_id], tracking_no, parcel)
        await self._settle(unit, states, payments, fired=False)
        with unit.measure("save"):
            await self._orders.save(unit, states, known, payments)

    async def wake(self, unit: UnitOfWork, due: Sequence[Due]) -> None:
        """Look again at these orders; busy ones are left for the next sweep."""
        order_ids = sorted(d.key for d in due)
        with unit.measure("load"):
            states = await self._orders.load(unit, order_ids, wait=False)
        before = {order_id: (s.incident, s.look_at) for order_id, s in states.items()}
        await self._settle(unit, states, {}, fired=True)
        changed = {o: s for o, s in states.items() if (s.incident, s.look_at) != before[o]}
        with unit.measure("save"):
            if changed:
                await self._orders.save(unit, changed, changed.keys(), {})

    async def _settle(
        self, unit: UnitOfWork, states: Mapping[str, OrderState], payments: Mapping[str, bytes], fired: bool
    ) -> None:
        """Decide each order, note when to look again, and emit what changed."""
        outcomes = []
        with unit.measure("decide"):
            for order_id, state in states.items():
                outcome = settle(state, unit.now, self._policy, unit.silent_until)
                state.incident = outcome.incident
                if fired or outcome.look_at != state.look_at:
                    state.look_at = outcome.look_at
                    unit.wake(order_id, outcome.look_at)
                if outcome.emit is not None:
                    outcomes.append((order_id, outcome))
        if not outcomes:
            return
        missing = [order_id for order_id, _ in outcomes if order_id not in payments]
        with unit.measure("load"):
            texts = {**payments, **(await self._orders.payments(unit, missing) if missing else {})}
        with unit.measure("decide"):
            for order_id, outcome in outcomes:
                paid = OrderPaid.model_validate_json(texts[order_id])
                unit.emit(to_message(announce(outcome, paid, unit.now)))
