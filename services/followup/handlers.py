"""The follow-up's shell: a batch of events in; load, fold, settle, save, emit.

A case is keyed by its incident. Orders are locked before cases, both in sorted order: whoever learns of an order's case
holds the order's row, so that an order's own events and its new cases never miss each other.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from services.followup.rules.case import Outcome, open_options, route, settle
from services.followup.rules.facts import Case, Choice
from services.followup.rules.fold import ORDER_EVENTS, fold, fold_order
from services.followup.rules.order import Order
from services.followup.rules.tasks import ANSWER_WITHIN, CALL_WITHIN, Kind, Task, group_of
from services.followup.rules.timeline import Moment, of_event, of_person, of_tasks
from shared.errors import AskPerson
from shared.events.deliveries import ContactOptedOut, Delivery, WavePaused
from shared.events.envelope import Event, to_message
from shared.events.incidents import Incident
from shared.events.notices import NoticeComposed
from shared.events.orders import RemedyOutcome
from shared.events.replies import ReplyReceived
from shared.events.stores import Mode, NewStores, StoreConfigured, WaveReleased, mode_of
from shared.personal import mask
from shared.store import stores
from shared.store.timers import Due
from shared.store.unit import UnitOfWork

OF_A_CASE = (Incident, NoticeComposed, Delivery)
"""Events that name their incident."""
WANTED = (*OF_A_CASE, *ORDER_EVENTS, ContactOptedOut, WavePaused, RemedyOutcome, ReplyReceived)

FREE = ("detail", "reason", "topic")
"""Where orders and remedies hold free text."""


class Cases(Protocol):
    """What the follow-up keeps. All calls run inside the unit's transaction."""

    async def lock_orders(self, unit: UnitOfWork, order_ids: Sequence[str]) -> dict[str, Order]:
        """Lock these orders in the order given, made where there are none, and return all."""
        ...

    async def orders(self, unit: UnitOfWork, order_ids: Collection[str]) -> dict[str, Order]:
        """Those that exist, as they stand, without a lock."""
        ...

    async def save_orders(self, unit: UnitOfWork, orders: Mapping[str, Order]) -> None: ...

    async def of_orders(self, unit: UnitOfWork, order_ids: Collection[str]) -> list[tuple[str, str]]:
        """(order, case) of all cases of these orders, each order's newest first."""
        ...

    async def of_remedies(self, unit: UnitOfWork, remedy_ids: Collection[str]) -> dict[str, str]:
        """The cases that asked for these remedies."""
        ...

    async def load(self, unit: UnitOfWork, case_ids: Sequence[str], wait: bool) -> dict[str, Case]:
        """Lock these cases in the order given and return the ones that exist. Without `wait` the ones that others hold
        are left out; with it, in a careful unit, all exist afterwards."""
        ...

    async def save(self, unit: UnitOfWork, cases: Mapping[str, Case], known: Collection[str]) -> None:
        """Write these cases. Raises `Raced` where one that is not in `known` exists by now."""
        ...

    async def tell(self, unit: UnitOfWork, moments: Sequence[Moment]) -> None:
        """Add to timelines; what is there already stays as it is."""
        ...

    async def save_promises(self, unit: UnitOfWork, changed: Sequence[tuple[Case, str]]) -> None: ...

    async def raise_tasks(self, unit: UnitOfWork, raised: Sequence[tuple[Case, Task]]) -> None:
        """Put each into its group's open task, which is made where there is none."""
        ...

    async def raise_once(
        self, unit: UnitOfWork, member: str, task: Task, *, store_id: str | None, scenario: str | None, least: int
    ) -> None:
        """A task without a case, unless `member` was in one before. `least` is how many it stands for."""
        ...

    async def withdraw(self, unit: UnitOfWork, members: Collection[str]) -> None:
        """Take these out of their open tasks; a task without members is done."""
        ...


@dataclass
class _Work:
    """What one transaction has in hand."""

    cases: dict[str, Case] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    moments: list[Moment] = field(default_factory=list)


class FollowUp:
    """Guarantees: applying an event twice changes nothing; any order of one case's events ends in the same state; a
    case asks for one remedy and one reminder at most; what is emitted is emitted in the transaction that decided it."""

    def __init__(self, cases: Cases, new_stores: NewStores) -> None:
        self._cases = cases
        self._new_stores = new_stores

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        """Apply one partition's events, each case's in their sequence."""
        for news in await stores.project(unit.connection, unit.schema, events):
            if isinstance(news.data, WaveReleased):
                await self._cases.withdraw(unit, [news.data.wave_id])
        wanted = [_masked(event) for event in events if isinstance(event.data, WANTED)]
        if not wanted:
            return
        work = _Work()
        with unit.measure("load"):
            targets = await self._load(unit, work, wanted)
        with unit.measure("decide"):
            changed = self._fold(unit, work, wanted, targets)
        with unit.measure("save"):
            if changed:
                await self._cases.save_orders(unit, {o: work.orders[o] for o in changed})
            for event in wanted:
                await self._without_case(unit, event, targets)
        await self._settle(unit, work, fired=False)

    async def wake(self, unit: UnitOfWork, due: Sequence[Due]) -> None:
        """Look again at these cases; busy ones are left for the next sweep."""
        work = _Work()
        with unit.measure("load"):
            work.cases = await self._cases.load(unit, sorted(d.key for d in due), wait=False)
        await self._settle(unit, work, fired=True)

    # ---- people, over REST; each call in a transaction of its own

    async def choose(self, unit: UnitOfWork, case_id: str, number: int, by: str) -> None:
        """Take an option for the customer, as the customer's choice. Raises `AskPerson` where it cannot be had."""

        def change(case: Case) -> None:
            options = open_options(case, unsent=True)
            if number not in options:
                numbers = ", ".join(map(str, sorted(options))) or "none"
                raise AskPerson(f"no option {number} is open in this case (open: {numbers})")
            notice_id, option = options[number]
            if case.choice is None:
                if case.closed is not None or case.by_person is not None:
                    raise AskPerson("the case is over: nothing can be chosen any more")
                case.choice = Choice(unit.now, notice_id, option, None, by)
            elif case.choice.option.code is not option.code:
                raise AskPerson(
                    f"the customer has chosen {case.choice.option.code} already, and its remedy is under way: settle it"
                    " with the order system, then mark the task done with a note"
                )

        await self._by_person(unit, case_id, change, of_person(case_id, "task.answered", by, unit.now, number=number))

    async def tick(self, unit: UnitOfWork, case_id: str, promise_id: str, by: str) -> None:
        """A person says that a promise was kept. Raises `AskPerson` where it is settled otherwise."""

        def change(case: Case) -> None:
            entry = case.ledger[promise_id]
            if not entry.pending and entry.state != "kept":
                raise AskPerson(f"the promise is {entry.state} already: {entry.reason}")
            case.ticked.setdefault(promise_id, by)

        moment = of_person(case_id, "promise.ticked", by, unit.now, promise_id=promise_id)
        await self._by_person(unit, case_id, change, moment)

    async def done(self, unit: UnitOfWork, case_id: str, kind: str, by: str, note: str) -> None:
        """A person has done a task of this case. Where the loop had failed, they have brought it to its end."""

        def change(case: Case) -> None:
            if kind in {Kind.REMEDY_FAILED, Kind.PROMISE_BROKEN} and case.closed is None and case.by_person is None:
                case.by_person = unit.now

        await self._by_person(
            unit, case_id, change, of_person(case_id, "task.done", by, unit.now, kind=kind, note=note)
        )

    async def lock(self, unit: UnitOfWork, case_id: str) -> None:
        """Hold the case until the transaction's end."""
        await self._cases.load(unit, [case_id], wait=True)

    async def _by_person(self, unit: UnitOfWork, case_id: str, change: Callable[[Case], None], moment: Moment) -> None:
        work = _Work(moments=[moment])
        work.cases = await self._cases.load(unit, [case_id], wait=True)
        change(work.cases[case_id])
        await self._settle(unit, work, fired=True)

    # ---- the parts of `apply`

    async def _load(self, unit: UnitOfWork, work: _Work, events: Sequence[Event[Any]]) -> dict[str, list[str]]:
        """Lock what the events are about. Returns each event's cases by the event's id; a reply's are candidates."""
        data = [event.data for event in events]
        order_ids = sorted({o for d in data if (o := getattr(d, "order_id", None)) is not None})
        work.orders = await self._cases.lock_orders(unit, order_ids) if order_ids else {}
        by_order: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for order_id, case_id in await self._cases.of_orders(unit, order_ids) if order_ids else ():
            by_order[order_id][case_id] = None
        for d in data:
            if isinstance(d, OF_A_CASE):
                by_order[d.order_id][d.incident_id] = None
        remedies = [d.remedy_id for d in data if isinstance(d, RemedyOutcome)]
        of_remedy = await self._cases.of_remedies(unit, remedies) if remedies else {}
        targets: dict[str, list[str]] = {}
        for event in events:
            d = event.data
            if isinstance(d, OF_A_CASE):
                found: Iterable[str] = [d.incident_id]
            elif isinstance(d, RemedyOutcome):
                # A remedy that is not ours is none of our business.
                found = [of_remedy[d.remedy_id]] if d.remedy_id in of_remedy else []
            elif isinstance(d, ReplyReceived):
                found = d.incident_ids or by_order.get(d.order_id or "", ())
            else:
                found = by_order.get(getattr(d, "order_id", None) or "", ())
            targets[_name(event)] = list(found)
        case_ids = sorted({case_id for found in targets.values() for case_id in found})
        work.cases = await self._cases.load(unit, case_ids, wait=True) if case_ids else {}
        work.known = frozenset(work.cases)
        for case_id in case_ids:
            work.cases.setdefault(case_id, Case(case_id))
        return targets

    def _fold(
        self, unit: UnitOfWork, work: _Work, events: Sequence[Event[Any]], targets: Mapping[str, list[str]]
    ) -> set[str]:
        """Take the events into their cases and orders. Returns the orders whose own facts changed."""
        changed = set()
        for event in events:
            data, found, ambiguous = event.data, targets[_name(event)], False
            if isinstance(data, ORDER_EVENTS):
                fold_order(work.orders[data.order_id], event)
                changed.add(data.order_id)
            if isinstance(data, ReplyReceived) and len(found) > 1:
                candidates = [work.cases[case_id] for case_id in found]
                if any(data.reply_id in case.replies for case in candidates):
                    continue
                case_id, ambiguous = route(data.text, data.received_at, candidates)
                found = [case_id]
            for case_id in found:
                fold(work.cases[case_id], event, unit.now, ambiguous=ambiguous)
                work.moments.append(of_event(case_id, event))
        return changed

    async def _without_case(self, unit: UnitOfWork, event: Event[Any], targets: Mapping[str, list[str]]) -> None:
        data = event.data
        if isinstance(data, WavePaused):
            group = group_of(Kind.WAVE, data.store_id, str(data.scenario))
            reason = f"{data.incidents} incidents within an hour, of {data.open_orders} open orders: is this real?"
            task = Task(data.wave_id, Kind.WAVE, group, reason, data.at + CALL_WITHIN, urgency=2)
            await self._cases.raise_once(
                unit,
                data.wave_id,
                task,
                store_id=data.store_id,
                scenario=str(data.scenario),
                least=max(1, data.incidents),
            )
        elif isinstance(data, ReplyReceived) and not targets[_name(event)]:
            reason = f"nobody knows which case this reply by {data.channel} is about: {data.text[:500]}"
            task = Task(
                data.reply_id, Kind.UNKNOWN_SENDER, f"{Kind.UNKNOWN_SENDER}/{data.reply_id}", reason,
                data.received_at + ANSWER_WITHIN,
            )  # fmt: skip
            await self._cases.raise_once(unit, data.reply_id, task, store_id=data.store_id, scenario=None, least=1)

    async def _settle(self, unit: UnitOfWork, work: _Work, fired: bool) -> None:
        """Settle every case in hand; save, raise, emit."""
        if not work.cases:
            return
        with unit.measure("load"):
            missing = {c.order_id for c in work.cases.values() if c.order_id} - set(work.orders)
            orders = {**work.orders, **(await self._cases.orders(unit, missing) if missing else {})}
            known_stores = await self._stores(unit, work.cases.values())
        outcomes: list[tuple[Case, Outcome]] = []
        with unit.measure("decide"):
            for case_id, case in sorted(work.cases.items()):
                order = orders.get(case.order_id or "") or Order()
                store = known_stores.get(case.store_id or "")
                outcome = settle(case, order, unit.now, self._watched(case, store), store)
                outcomes.append((case, outcome))
                if fired or outcome.look_at != case.look_at:
                    case.look_at = outcome.look_at
                    unit.wake(case_id, outcome.look_at)
                work.moments += [of_event(case_id, event) for event in outcome.emits]
                work.moments += of_tasks(case_id, outcome.raised, outcome.withdrawn, unit.now)
                for event in outcome.emits:
                    unit.emit(to_message(event))
        with unit.measure("save"):
            known = work.cases.keys() if fired else work.known
            await self._cases.save(unit, work.cases, known)
            await self._write(unit, outcomes)
            if work.moments:
                await self._cases.tell(unit, work.moments)

    async def _write(self, unit: UnitOfWork, outcomes: Sequence[tuple[Case, Outcome]]) -> None:
        if changed := [(case, p) for case, outcome in outcomes for p in outcome.promises]:
            await self._cases.save_promises(unit, changed)
        if gone := [f"{case.case_id}/{key}" for case, outcome in outcomes for key in outcome.withdrawn]:
            await self._cases.withdraw(unit, gone)
        if raised := [(case, task) for case, outcome in outcomes for task in outcome.raised]:
            await self._cases.raise_tasks(unit, raised)

    async def _stores(self, unit: UnitOfWork, cases: Iterable[Case]) -> Mapping[str, StoreConfigured]:
        ids = {case.store_id for case in cases if case.store_id is not None}
        return await stores.stores(unit.connection, unit.schema, ids) if ids else {}

    def _watched(self, case: Case, store: StoreConfigured | None) -> bool:
        """Whether the store's mode lets the case open."""
        if case.scenario is None:
            return True
        return mode_of(store, case.scenario, self._new_stores) not in {Mode.OFF, Mode.SHADOW}


def _masked(event: Event[Any]) -> Event[Any]:
    """The event without the phones that the shop's and its customers' own words may hold."""
    data = event.data
    if not isinstance(data, (*ORDER_EVENTS, RemedyOutcome)):
        return event
    said = {name: getattr(data, name, None) for name in FREE}
    clean = {name: mask(text) for name, text in said.items() if text is not None}
    return replace(event, data=data.model_copy(update=clean)) if clean else event


def _name(event: Event[Any]) -> str:
    return f"{event.source}\x1f{event.id}"
