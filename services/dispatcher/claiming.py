"""One round of the sender: whose turn it is, what the gate says, what is claimed.

One transaction, in which no provider is called."""

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol

import structlog

from services.dispatcher.channels.port import Channel, Message, Unknown
from services.dispatcher.ledger import Claim, Ledger, Loaded, Scene, keys_of, spent_of
from services.dispatcher.rules import gate, plan, turn
from services.dispatcher.rules.address import Address, address
from services.dispatcher.rules.backoff import Backoff
from services.dispatcher.rules.gate import Look
from services.dispatcher.rules.outcome import settle
from services.dispatcher.rules.plan import Ways
from services.dispatcher.rules.ramp import Ramp
from services.dispatcher.rules.state import IncidentState, Notice, State, reference_of
from shared.clock import Clock
from shared.events.contacts import Contact
from shared.events.deliveries import Reason
from shared.events.envelope import to_message
from shared.events.stores import ANY, NewStores, StoreConfigured, default_store, mode_of
from shared.store.database import Database
from shared.store.unit import UnitOfWork

log = structlog.get_logger(__name__)

FRESH: Final = timedelta(seconds=10)
"""Nothing is claimed while the view of orders, replies and opt-outs is older than this."""
NEAR: Final = timedelta(minutes=30)
"""With so little left until its limit a notice goes to a person while the view stays old."""


REFUSED: Final = Unknown("the ledger says that it was sent before; whether it went out is not known")


class Opener(Protocol):
    """The seal on contacts. Only the dispatcher opens one."""

    def open(self, sealed: bytes) -> bytes: ...

    def lookup(self, kind: str, value: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """What an installation may set. `claims` is how many notices have their turn in one round."""

    new_stores: NewStores
    ramp: Ramp = field(default_factory=Ramp)
    lease: timedelta = timedelta(seconds=60)
    claims: int = 64


@dataclass(frozen=True, slots=True)
class Call:
    """One claimed message, to be handed to its channel now."""

    claim: Claim
    attempt: int
    message: Message = field(repr=False)


@dataclass(slots=True)
class Round:
    """`looked`: how many notices had their turn; `full`: some wait for a free place at a provider."""

    calls: list[Call] = field(default_factory=list)
    looked: int = 0
    full: bool = False
    stale: bool = False


class Claiming:
    """Guarantees: what is returned is committed in the ledger under `claimed_by`, so it is called once at most."""

    def __init__(
        self,
        ledger: Ledger,
        database: Database,
        opener: Opener,
        clock: Clock,
        *,
        schema: str,
        channels: Mapping[str, Channel],
        policy: Policy,
        claimed_by: str,
    ) -> None:
        self._ledger = ledger
        self._database = database
        self._opener = opener
        self._clock = clock
        self._schema = schema
        self._features = {name: channel.features for name, channel in channels.items()}
        self._policy = policy
        self._claimed_by = claimed_by

    async def round(self, places: Mapping[str, int], patient: bool) -> Round:
        """Let notices have their turn; `places` are the free ones of each channel. While the view is old nothing is
        done; without `patient` (it has been old for long) those near their limit are held for a person."""
        async with self._database.transaction() as connection:
            unit = UnitOfWork(connection, self._schema, self._clock.now(), durable=True)
            view_at = await self._ledger.view_at(unit)
            stale = view_at is None or unit.now - view_at > FRESH
            if stale and patient:
                return Round(stale=True)
            urgent_before = unit.now + NEAR if stale else None
            loaded = await self._ledger.due(unit, self._policy.claims, urgent_before)
            if not loaded.notices:
                return Round(stale=stale)
            done = await self._turns(unit, loaded, Counter(places), stale)
            await self._ledger.save(unit, loaded)
            await unit.flush()
        return done

    async def _turns(self, unit: UnitOfWork, loaded: Loaded, places: Counter[str], stale: bool) -> Round:
        scene = await self._ledger.scene(unit, loaded)
        stores = {
            n.data.store_id: scene.stores.get(n.data.store_id) or default_store(n.data.store_id)
            for n in loaded.notices.values()
        }
        addresses = {
            n.data.notice_id: [self._open(contact, stores[n.data.store_id]) for contact in n.data.contacts]
            for n in loaded.notices.values()
        }
        opted_out = await self._ledger.opted_out(
            unit,
            {
                (n.data.store_id, lookup)
                for n in loaded.notices.values()
                for a in addresses[n.data.notice_id]
                for lookup in (a.recipient, a.reply_key)
                if lookup
            },
        )
        wanted = {k for n in loaded.notices.values() for k in _keys(n, stores[n.data.store_id], unit)}
        counters = await self._ledger.spent(unit, wanted)
        before = dict(counters)
        busy = set(scene.busy)
        done = Round(looked=len(loaded.notices), stale=stale)
        claims: list[Claim] = []
        for notice in sorted(loaded.notices.values(), key=lambda n: (n.progress.came_at, n.data.notice_id)):
            data = notice.data
            spent = spent_of(counters, data.store_id, gate.day_of(unit.now, stores[data.store_id]), _template(notice))
            look = self._look(notice, loaded.of(notice), scene, stores[data.store_id], unit.now)
            look = replace(
                look,
                addresses=addresses[data.notice_id],
                opted_out=frozenset(lookup for store_id, lookup in opted_out if store_id == data.store_id),
                spent=spent,
                busy=data.incident_id in busy,
                stale=stale,
            )
            ways = self._ways(scene, data.store_id, str(data.scenario), places)
            taken = turn.take(look, ways, self._policy.lease)
            for event in taken.events:
                unit.emit(to_message(event))
            done.full = done.full or taken.full
            for step, candidate in taken.claims.items():
                claims.append(Claim(notice, step, candidate))
                places[candidate.provider] -= 1
                busy.add(data.incident_id)
            self._count(look, taken, counters)
        await self._ledger.spend(unit, {k: n for k, n in counters.items() if n != before[k]})
        if claims:
            done.calls = await self._granted(unit, claims, loaded, stores)
        return done

    def _look(
        self, notice: Notice, incident: IncidentState, scene: Scene, store: StoreConfigured, now: datetime
    ) -> Look:
        data = notice.data
        known = scene.stores.get(data.store_id)
        order = scene.orders.get(data.order_id)
        last = scene.waves.get((data.store_id, str(data.scenario)))
        stop = next((s for s in scene.stops if s.channel == ANY and s.covers(data.store_id, data.scenario, ANY)), None)
        in_wave = notice.state is State.HELD and notice.reason is Reason.WAVE
        return Look(
            now=now,
            notice=notice,
            incident=incident,
            store=store,
            known=known is not None,
            mode=mode_of(known, data.scenario, self._policy.new_stores),
            over=order.over if order else None,
            asked_first=order.asked_first(data.occurred_at) if order else None,
            asked_last=order.asked_last if order else None,
            stop=None if stop is None else f"a person has stopped sending: {stop.reason}".rstrip(": "),
            wave=f"an unusual wave: {last.words}" if last is not None and last.sends is None else None,
            dropped=in_wave and last is not None and last.sends is False,
            ramp=self._policy.ramp,
            steps=len(plan.steps_of(data, incident)),
        )

    def _open(self, contact: Contact, store: StoreConfigured) -> Address:
        try:
            value = self._opener.open(base64.b64decode(contact.sealed)).decode()
        except ValueError:
            return Address(contact.kind, contact.lookup, problem=Reason.BAD_ADDRESS)
        return address(contact, value, store.countries, self._opener.lookup)

    def _ways(self, scene: Scene, store_id: str, scenario: str, places: Mapping[str, int]) -> Ways:
        stopped = {
            (name, kind)
            for name, features in self._features.items()
            for kind in features.kinds
            for stop in scene.stops
            if stop.channel != ANY
            and (stop.covers(store_id, scenario, name) or stop.covers(store_id, scenario, str(kind)))
        }
        return Ways(
            self._features,
            paused={name: pause.until for name, pause in scene.pauses.items()},
            stopped=stopped,
            full={name for name in self._features if places[name] <= 0},
        )

    def _count(self, look: Look, taken: turn.Turn, counters: dict[tuple[str, str, str], Decimal]) -> None:
        data = look.notice.data
        calls, messages, money, template = keys_of(
            data.store_id, gate.day_of(look.now, look.store), _template(look.notice)
        )
        counters[messages] += sum(1 for i in taken.claims if look.notice.progress.steps[i].attempt == 1)
        counters[calls] += taken.call
        if taken.first:
            counters[money] += gate.money_of(look)
            counters[template] += 1

    async def _granted(
        self, unit: UnitOfWork, claims: list[Claim], loaded: Loaded, stores: Mapping[str, StoreConfigured]
    ) -> list[Call]:
        granted = await self._ledger.claim(unit, claims, self._claimed_by)
        calls = []
        for claim in claims:
            notice, step = claim.notice, claim.notice.progress.steps[claim.step]
            if (notice.data.notice_id, claim.step) in granted:
                calls.append(Call(claim, step.attempt, self._message(claim, stores[notice.data.store_id])))
                continue
            # The ledger has the last word: somebody was asked to send this before, and may have.
            log.error("claim_refused", notice_id=notice.data.notice_id, step=claim.step)
            told = settle(notice, loaded.of(notice), claim.step, REFUSED, unit.now, backoff=Backoff(), crashed=True)
            for event in told:
                unit.emit(to_message(event))
        return calls

    def _message(self, claim: Claim, store: StoreConfigured) -> Message:
        data, candidate = claim.notice.data, claim.candidate
        return Message(
            reference=reference_of(data.notice_id, candidate.recipient, claim.step),
            store_id=data.store_id,
            kind=candidate.kind,
            to=candidate.to,
            text=getattr(data.texts, candidate.kind) or "",
            signature=store.name or store.store_id,
            media=data.media if self._features[candidate.provider].pictures else (),
        )


def _template(notice: Notice) -> str:
    return f"{notice.data.template}:{notice.data.version}"


def _keys(notice: Notice, store: StoreConfigured, unit: UnitOfWork) -> tuple[tuple[str, str, str], ...]:
    return keys_of(notice.data.store_id, gate.day_of(unit.now, store), _template(notice))
