"""The detector's shell: a batch of events in; load, fold, decide, save, emit.

It keeps, for each order, what the rules need (see rules/facts.py). An order is known from its first event on, whichever
that is; nothing is decided before its payment is there. A scan that names no order waits under its tracking number
until an order does.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from services.detector.rules.announce import announce
from services.detector.rules.facts import OrderState, Parcel, fold, fold_parcel, merge, parcel_of
from services.detector.rules.shipping_delay import Outcome, Policy, settle
from shared.events.envelope import Event, to_message
from shared.events.incidents import Incident
from shared.events.orders import OrderPaid, OrderShipped
from shared.events.parcels import ParcelScanned
from shared.store import stores
from shared.store.timers import Due
from shared.store.unit import UnitOfWork


class Orders(Protocol):
    """What the detector keeps. All calls run inside the unit's transaction."""

    async def load(self, unit: UnitOfWork, order_ids: Sequence[str], wait: bool) -> dict[str, OrderState]:
        """Lock these orders in the order given (sorted by the caller) and return the ones that exist. Without `wait`
        the ones that others hold are left out."""
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


class Listing(Protocol):
    """What the detector has told, for people to look at."""

    async def keep(self, unit: UnitOfWork, told: Sequence[Incident]) -> None:
        """These incidents as they stand now, each once."""
        ...


class Feeds(Protocol):
    """When each store's order feed last spoke."""

    async def heard(self, unit: UnitOfWork, newest: Mapping[str, datetime]) -> None:
        """The stores' newest events, by the time that they happened. Locks a row that other batches want: call it
        last."""
        ...

    async def stale(
        self, unit: UnitOfWork, store_ids: Collection[str], newest: Mapping[str, datetime]
    ) -> Collection[str]:
        """Those of these stores that have declared how often their feed must speak, and it has not; `newest` is what
        this batch heard."""
        ...


class Sealing(Protocol):
    def sealed_json(self, paid: OrderPaid) -> bytes:
        """The order as it is kept: its body without readable addresses."""
        ...


class Detector:
    """Guarantees: applying an event twice changes nothing; any order of one order's events ends in the same state and
    the same open incident; an incident is emitted in the transaction that opened it."""

    def __init__(self, orders: Orders, listing: Listing, feeds: Feeds, sealing: Sealing, policy: Policy) -> None:
        self._orders = orders
        self._listing = listing
        self._feeds = feeds
        self._sealing = sealing
        self._policy = policy

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        """Apply one partition's events, each order's in their sequence."""
        by_order: defaultdict[str, list[Event[Any]]] = defaultdict(list)
        named: dict[str, str] = {}
        loose: dict[str, Parcel] = {}
        others: list[Event[Any]] = []
        for event in events:
            data = event.data
            order_id = getattr(data, "order_id", None)
            if order_id is not None:
                by_order[order_id].append(event)
                if type(data) is OrderShipped:
                    named[data.tracking_no] = order_id
            elif type(data) is ParcelScanned:
                loose[data.tracking_no] = merge(loose.get(data.tracking_no), parcel_of(data, event.stamp))
            else:
                others.append(event)
        await stores.project(unit.connection, unit.schema, others)
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
                        payments[order_id] = self._sealing.sealed_json(event.data)
            for tracking_no, (order_id, parcel) in arrived.items():
                fold_parcel(states[order_id], tracking_no, parcel)
            newest = _newest(by_order, states)
        await self._settle(unit, states, payments, newest, fired=False)
        with unit.measure("save"):
            await self._orders.save(unit, states, known, payments)
            if newest:
                await self._feeds.heard(unit, newest)

    async def wake(self, unit: UnitOfWork, due: Sequence[Due]) -> None:
        """Look again at these orders; busy ones are left for the next sweep."""
        order_ids = sorted(d.key for d in due)
        with unit.measure("load"):
            states = await self._orders.load(unit, order_ids, wait=False)
        before = {order_id: (s.incident, s.look_at) for order_id, s in states.items()}
        await self._settle(unit, states, {}, {}, fired=True)
        changed = {o: s for o, s in states.items() if (s.incident, s.look_at) != before[o]}
        with unit.measure("save"):
            if changed:
                await self._orders.save(unit, changed, changed.keys(), {})

    async def _settle(
        self,
        unit: UnitOfWork,
        states: Mapping[str, OrderState],
        payments: Mapping[str, bytes],
        newest: Mapping[str, datetime],
        *,
        fired: bool,
    ) -> None:
        """Decide each order, note when to look again, and emit what changed."""
        with unit.measure("decide"):
            outcomes = {
                order_id: settle(state, unit.now, self._policy, unit.silent_until) for order_id, state in states.items()
            }
        await self._doubt(unit, states, outcomes, newest)
        with unit.measure("decide"):
            for order_id, outcome in outcomes.items():
                state = states[order_id]
                state.incident = outcome.incident
                if fired or outcome.look_at != state.look_at:
                    state.look_at = outcome.look_at
                    unit.wake(order_id, outcome.look_at)
        telling = {order_id: outcome for order_id, outcome in outcomes.items() if outcome.emit is not None}
        if telling:
            await self._tell(unit, telling, payments)

    async def _doubt(
        self,
        unit: UnitOfWork,
        states: Mapping[str, OrderState],
        outcomes: dict[str, Outcome],
        newest: Mapping[str, datetime],
    ) -> None:
        """What rests on silence is settled again as held where the feed itself is silent."""
        by_store: defaultdict[str, list[str]] = defaultdict(list)
        for order_id, outcome in outcomes.items():
            incident, payment = outcome.incident, states[order_id].payment
            if incident is None or payment is None or not (incident.open and incident.absent):
                continue
            before = states[order_id].incident
            if outcome.emit is not None or (before is not None and before.held):
                by_store[payment.store_id].append(order_id)
        if not by_store:
            return
        with unit.measure("load"):
            stale = await self._feeds.stale(unit, by_store.keys(), newest)
        for order_id in (order_id for store_id in stale for order_id in by_store[store_id]):
            state = states[order_id]
            outcomes[order_id] = settle(state, unit.now, self._policy, unit.silent_until, stale=True)

    async def _tell(self, unit: UnitOfWork, telling: Mapping[str, Outcome], payments: Mapping[str, bytes]) -> None:
        missing = [order_id for order_id in telling if order_id not in payments]
        with unit.measure("load"):
            texts = {**payments, **(await self._orders.payments(unit, missing) if missing else {})}
        with unit.measure("decide"):
            told = []
            for order_id, outcome in telling.items():
                paid = OrderPaid.model_validate_json(texts[order_id])
                event = announce(outcome, paid, unit.now)
                unit.emit(to_message(event))
                told.append(event.data)
        with unit.measure("save"):
            await self._listing.keep(unit, told)


def _newest(by_order: Mapping[str, Sequence[Event[Any]]], states: Mapping[str, OrderState]) -> dict[str, datetime]:
    """When each store's newest of these events happened, as far as an order's store is known."""
    newest: dict[str, datetime] = {}
    for order_id, events in by_order.items():
        payment = states[order_id].payment
        if payment is not None:
            store_id, before = payment.store_id, newest.get(payment.store_id)
            for event in events:
                if before is None or event.time > before:
                    newest[store_id] = before = event.time
    return newest
