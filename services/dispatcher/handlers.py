"""The dispatcher's shell: what it learns from the topics.

Orders, incidents, replies and settings become its view for the last look. A notice is only taken in here; the sender
(sender.py) decides on it, once for all, moments later. Whatever news may change a decision makes the sender look again.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from services.dispatcher.rules import wave
from services.dispatcher.rules.announce import CUSTOMER, SOURCE, opted_out
from services.dispatcher.rules.state import IncidentState, OrderView, fold_incident, fold_order
from shared.events.cases import CaseClosed, ChoiceMade
from shared.events.deliveries import Channel, WavePaused
from shared.events.envelope import Event, event, event_id, to_message
from shared.events.incidents import Incident, Scenario
from shared.events.notices import NoticeComposed, Purpose
from shared.events.orders import OrderPayload
from shared.events.replies import ReplyReceived, opts_out
from shared.events.stores import ANY, SendingStopped, StoreConfigured, WaveReleased, default_store
from shared.store import stores
from shared.store.timers import Due
from shared.store.unit import UnitOfWork


@dataclass(frozen=True, slots=True)
class Surge:
    """First contacts of a store and scenario: how many within the window, of how many open orders. `number` is the
    count of earlier waves, `paused` whether the last of them still waits for a person."""

    first_contacts: int
    open_orders: int
    number: int
    paused: bool


@dataclass(frozen=True, slots=True)
class Customer:
    """Whom a notice is for: `lookups` are all values that they may be written to or write from, `recipient` the one
    that was written to last."""

    store_id: str
    order_id: str
    recipient: str
    lookups: frozenset[str]


class Projection(Protocol):
    """What the dispatcher learns and keeps. All calls run inside the unit's transaction; locks are taken in the order
    orders, incidents, notices, counters, and within each by key."""

    async def orders(self, unit: UnitOfWork, ids: Sequence[str]) -> dict[str, OrderView]:
        """Lock these orders (sorted by the caller); those that exist, and in a careful unit all."""
        ...

    async def save_orders(self, unit: UnitOfWork, views: Mapping[str, OrderView], known: Collection[str]) -> None:
        """Write them. Raises `Raced` where one that is not in `known` exists by now."""
        ...

    async def incidents(self, unit: UnitOfWork, ids: Sequence[str]) -> dict[str, IncidentState]:
        """As `orders`."""
        ...

    async def save_incidents(
        self, unit: UnitOfWork, states: Mapping[str, IncidentState], known: Collection[str]
    ) -> None:
        """As `save_orders`."""
        ...

    async def take_in(self, unit: UnitOfWork, notices: Sequence[NoticeComposed]) -> Sequence[NoticeComposed]:
        """Keep these notices, for the sender to look at now; those that were new."""
        ...

    async def look_again(
        self, unit: UnitOfWork, *, orders: Collection[str] = (), incidents: Collection[str] = ()
    ) -> None:
        """Let the sender look at the open notices of these."""
        ...

    async def look_again_in(
        self, unit: UnitOfWork, store_id: str | None, scenario: str | None, reason: str | None
    ) -> None:
        """Let the sender look at the open notices of a store, a scenario, with a reason; None: any."""
        ...

    async def wake(self, unit: UnitOfWork, notice_ids: Sequence[str]) -> Collection[str]:
        """Let the sender look at these; which were not busy. Never waits for a lock."""
        ...

    async def count(self, unit: UnitOfWork, changes: Mapping[tuple[str, str, str], int]) -> None:
        """Add to counters, by (store, name, bucket). Taken last, so that nobody waits long for one."""
        ...

    async def surge(self, unit: UnitOfWork, store_id: str, scenario: Scenario) -> Surge:
        """How things stand, this unit's own counts included."""
        ...

    async def pause(self, unit: UnitOfWork, number: int, paused: WavePaused, words: str) -> bool:
        """Note the wave, the store's and scenario's `number`th; False where another was faster."""
        ...

    async def customers(self, unit: UnitOfWork, incident_ids: Collection[str]) -> Sequence[Customer]:
        """Whom the notices of these incidents are for, the newest first."""
        ...

    async def opt_out(self, unit: UnitOfWork, store_id: str, lookups: Collection[str], channel: str, by: str) -> bool:
        """Note that they want no more messages from this store; False where that was known."""
        ...

    async def release(self, unit: UnitOfWork, released: WaveReleased, at: datetime) -> str | None:
        """Note what a person decided on a wave; its scenario, or None for a wave that is not known or was decided."""
        ...


class Dispatcher:
    """Guarantees: applying an event twice changes nothing; a notice is kept in the transaction that read it; an event
    that may change what the gate says makes the sender look again in the transaction that took it in."""

    def __init__(self, projection: Projection, schema: str) -> None:
        self._projection = projection
        self._schema = schema

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        """Apply one partition's events, each order's in their sequence."""
        await self._settings(unit, events)
        await self._orders(unit, [e for e in events if isinstance(e.data, OrderPayload)])
        await self._incidents(unit, [e for e in events if _incidents_of(e)])
        await self._opt_outs(unit, [e.data for e in events if isinstance(e.data, ReplyReceived)])
        await self._notices(unit, [e for e in events if isinstance(e.data, NoticeComposed)])

    async def wake(self, unit: UnitOfWork, due: Sequence[Due]) -> None:
        """A wait is over: the sender looks again."""
        for notice_id in await self._projection.wake(unit, [d.key for d in due]):
            unit.wake(notice_id, None)

    async def _settings(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        for news in await stores.project(unit.connection, self._schema, events):
            data = news.data
            if isinstance(data, StoreConfigured):
                await self._projection.look_again_in(unit, data.store_id, None, None)
            elif isinstance(data, SendingStopped) and not data.stopped:
                store_id = None if data.store_id == ANY else data.store_id
                scenario = None if data.scenario == ANY else data.scenario
                await self._projection.look_again_in(unit, store_id, scenario, None)
            elif isinstance(data, WaveReleased):
                of = await self._projection.release(unit, data, news.time)
                if of is not None:
                    await self._projection.look_again_in(unit, data.store_id, of, "wave")

    async def _orders(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        ids = sorted({e.data.order_id for e in events})
        if not ids:
            return
        with unit.measure("load"):
            views = await self._projection.orders(unit, ids)
        known = frozenset(views)
        before = {order_id: (_judged(view), view.store_id, view.open) for order_id, view in views.items()}
        with unit.measure("decide"):
            for one in events:
                fold_order(views.setdefault(one.data.order_id, OrderView()), one)
        with unit.measure("save"):
            await self._projection.save_orders(unit, views, known)
            nothing = (_judged(OrderView()), "", False)
            changed = [o for o, v in views.items() if _judged(v) != before.get(o, nothing)[0]]
            if changed:
                await self._projection.look_again(unit, orders=changed)
            open_orders: Counter[tuple[str, str, str]] = Counter()
            for order_id, view in views.items():
                _, store_id, was_open = before.get(order_id, nothing)
                open_orders[store_id, "open", ""] -= was_open
                open_orders[view.store_id, "open", ""] += view.open
            await self._projection.count(unit, {key: n for key, n in open_orders.items() if n})

    async def _incidents(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        ids = sorted({i for e in events for i in _incidents_of(e)})
        if not ids:
            return
        with unit.measure("load"):
            states = await self._projection.incidents(unit, ids)
        known = frozenset(states)
        changed: set[str] = set()
        for one in events:
            for incident_id in _incidents_of(one):
                state = states.setdefault(incident_id, IncidentState())
                if isinstance(one.data, NoticeComposed):
                    state.seen_at = state.seen_at or unit.now
                elif fold_incident(state, one):
                    changed.add(incident_id)
        with unit.measure("save"):
            await self._projection.save_incidents(unit, states, known)
            if changed:
                await self._projection.look_again(unit, incidents=changed)

    async def _opt_outs(self, unit: UnitOfWork, replies: Sequence[ReplyReceived]) -> None:
        """What an agent typed in; a reply by a provider was entered where it came in."""
        for reply in replies:
            if reply.provider is not None or not opts_out(reply.text):
                continue
            channel = Channel(reply.channel) if reply.channel in list(Channel) else Channel.CHAT
            for one in await self._projection.customers(unit, reply.incident_ids):
                if await self._projection.opt_out(unit, one.store_id, one.lookups, channel, CUSTOMER):
                    told = opted_out(one.store_id, one.order_id, one.recipient, channel, unit.now)
                    unit.emit(to_message(told))
            await self._projection.look_again(unit, incidents=reply.incident_ids)

    async def _notices(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        if not events:
            return
        with unit.measure("save"):
            taken = await self._projection.take_in(unit, [e.data for e in events])
        minute = f"{unit.now:%Y-%m-%dT%H:%M}"
        first = Counter((n.store_id, n.scenario) for n in taken if n.purpose is Purpose.FIRST_CONTACT)
        if not first:
            return
        await self._projection.count(unit, {(s, f"first/{x}", minute): n for (s, x), n in first.items()})
        configured = await stores.stores(unit.connection, self._schema, {store_id for store_id, _ in first})
        for store_id, scenario in sorted(first):
            store = configured.get(store_id) or default_store(store_id)
            await self._watch(unit, store, scenario)

    async def _watch(self, unit: UnitOfWork, store: StoreConfigured, scenario: Scenario) -> None:
        surge = await self._projection.surge(unit, store.store_id, scenario)
        unusual, words = wave.breaks(surge.first_contacts, surge.open_orders, store.wave)
        if surge.paused or not unusual:
            return
        number = surge.number + 1
        paused = WavePaused(
            wave_id=wave.wave_id(store.store_id, scenario, number),
            store_id=store.store_id,
            scenario=scenario,
            at=unit.now,
            incidents=surge.first_contacts,
            open_orders=surge.open_orders,
        )
        if await self._projection.pause(unit, number, paused, words):
            identity = event_id(WavePaused.TYPE, paused.wave_id)
            unit.emit(to_message(event(paused, id=identity, source=SOURCE, time=unit.now)))


def _judged(view: OrderView) -> tuple[Any, ...]:
    """What the gate asks about an order."""
    return view.over, tuple(view.applied), tuple(view.contacted), view.paid_at


def _incidents_of(one: Event[Any]) -> tuple[str, ...]:
    """The incidents that an event speaks of."""
    data = one.data
    if isinstance(data, ReplyReceived):
        return data.incident_ids
    if isinstance(data, Incident | NoticeComposed | ChoiceMade | CaseClosed):
        return (data.incident_id,)
    return ()
