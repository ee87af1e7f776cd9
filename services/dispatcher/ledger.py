"""What the sender, the hooks and people's acts need of the ledger, and the rules that it keeps for all of them.

Locks are taken in the order incidents, notices, counters, and within each by key; only `due` passes over what others
hold. A claim is a row of its own (notice, recipient, step): it is granted once, and again only after the call before it
surely failed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from services.dispatcher.channels.port import Inbound, Receipt, ReceiptState
from services.dispatcher.rules.gate import Spent
from services.dispatcher.rules.plan import Candidate
from services.dispatcher.rules.routing import Asked
from services.dispatcher.rules.state import IncidentState, Notice, OrderView
from shared.events.stores import StoreConfigured
from shared.store.stores import Stop
from shared.store.unit import UnitOfWork


@dataclass(slots=True)
class Loaded:
    """Notices with their incidents, all locked by this unit."""

    notices: dict[str, Notice] = field(default_factory=dict)
    incidents: dict[str, IncidentState] = field(default_factory=dict)

    def of(self, notice: Notice) -> IncidentState:
        return self.incidents[notice.data.incident_id]


@dataclass(frozen=True, slots=True)
class Pause:
    """A channel that nothing is given to until then, after so many failures in a row. `account`: a person has to mend
    something."""

    failures: int
    until: datetime
    account: bool
    reason: str


@dataclass(frozen=True, slots=True)
class LastWave:
    """A store's and scenario's last wave. `sends` None: it waits for a person."""

    words: str
    sends: bool | None


@dataclass(slots=True)
class Scene:
    """All that a batch of notices is judged by, as of one moment."""

    stores: Mapping[str, StoreConfigured]
    stops: Sequence[Stop]
    waves: Mapping[tuple[str, str], LastWave]
    orders: Mapping[str, OrderView]
    busy: Collection[str]
    """Incidents of which a message is going out."""
    pauses: Mapping[str, Pause]


@dataclass(frozen=True, slots=True)
class Claim:
    notice: Notice
    step: int
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Done:
    """What is known of a claimed call: its new state in the ledger."""

    notice_id: str
    step: int
    recipient: str
    attempt: int
    state: str
    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of the ledger by its reference. `state` is claimed, sent, failed, undelivered, unknown, or person."""

    notice_id: str
    step: int
    recipient: str
    state: str
    provider: str


class Ledger(Protocol):
    async def view_at(self, unit: UnitOfWork) -> datetime | None:
        """Up to when the view of the topics is whole; None: never yet."""
        ...

    async def due(self, unit: UnitOfWork, limit: int, urgent_before: datetime | None = None) -> Loaded:
        """Lock notices whose turn it is, the most urgent first, passing over those that others hold. With
        `urgent_before` only offers that have not gone yet and whose limit is before it."""
        ...

    async def lapsed(self, unit: UnitOfWork, mine: Collection[str]) -> Loaded:
        """Lock notices whose claim has run out, but for `mine`, which are still called."""
        ...

    async def locked(self, unit: UnitOfWork, notice_ids: Collection[str]) -> Loaded:
        """Lock these, and the open notices of the same incidents; waits for whoever holds them."""
        ...

    async def scene(self, unit: UnitOfWork, loaded: Loaded) -> Scene: ...

    async def opted_out(self, unit: UnitOfWork, lookups: Collection[tuple[str, str]]) -> Collection[tuple[str, str]]:
        """Those of these, by store and look-up value, that want no more messages."""
        ...

    async def spent(
        self, unit: UnitOfWork, keys: Collection[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Decimal]:
        """Lock these counters, by (store, name, bucket), and read them."""
        ...

    async def spend(self, unit: UnitOfWork, values: Mapping[tuple[str, str, str], Decimal]) -> None:
        """Write counters that `spent` has locked."""
        ...

    async def claim(self, unit: UnitOfWork, claims: Sequence[Claim], claimed_by: str) -> Collection[tuple[str, int]]:
        """Enter these into the ledger; which were granted, by notice and step."""
        ...

    async def finish(
        self, unit: UnitOfWork, done: Sequence[Done], claimed_by: str | None
    ) -> Mapping[tuple[str, int], tuple[str, str] | None]:
        """Enter what became of these calls; those that it was news of, each with the receipt that came before (state
        and detail). `claimed_by` None: whoever claimed them is gone."""
        ...

    async def save(self, unit: UnitOfWork, loaded: Loaded) -> None:
        """Write the notices and incidents, and ask to be woken where they want it."""
        ...

    async def look_again(self, unit: UnitOfWork, incidents: Collection[str]) -> None:
        """Let the sender look at the open notices of these incidents."""
        ...

    async def look_again_at_paused(self, unit: UnitOfWork) -> None:
        """Let the sender look at what waits for a channel that was paused."""
        ...

    async def paused(self, unit: UnitOfWork, pauses: Mapping[str, Pause | None]) -> None:
        """Pause channels, or (None) use them again."""
        ...

    async def pauses(self, unit: UnitOfWork) -> Mapping[str, Pause]: ...

    async def attempts(self, unit: UnitOfWork, references: Collection[str]) -> Mapping[str, Attempt]:
        """The ledger's rows with these references."""
        ...

    async def keep_receipts(self, unit: UnitOfWork, receipts: Sequence[Receipt]) -> None:
        """Note receipts beside calls that have not been answered yet."""
        ...

    async def received(self, unit: UnitOfWork, attempts: Sequence[tuple[Attempt, ReceiptState]]) -> None:
        """Enter what receipts say of calls that were answered."""
        ...

    async def first_inbound(self, unit: UnitOfWork, provider: str, messages: Sequence[Inbound]) -> Collection[str]:
        """Note these messages; the ids of those that are new."""
        ...

    async def asked(self, unit: UnitOfWork, lookups: Collection[str], since: datetime) -> Sequence[tuple[str, Asked]]:
        """The questions that went out to these recipients or reply keys, each with its recipient."""
        ...

    async def asked_by(self, unit: UnitOfWork, notice_id: str) -> Asked | None:
        """What this notice asked, where it has gone out."""
        ...

    async def opt_out(self, unit: UnitOfWork, store_id: str, lookups: Collection[str], channel: str, by: str) -> bool:
        """Note that they want no more; False where that was known."""
        ...

    async def waiting(self, unit: UnitOfWork) -> bool:
        """Whether anything is to be looked at now or has lapsed."""
        ...

    async def figures(self, unit: UnitOfWork) -> tuple[int, int]:
        """How many sends are unknown, and how many notices held."""
        ...


def spent_of(counters: Mapping[tuple[str, str, str], Decimal], store_id: str, day: str, template: str) -> Spent:
    """The counters that the gate asks about."""
    return Spent(
        messages=int(counters[store_id, "messages", day]),
        money=counters[store_id, "money", day],
        calls=int(counters[store_id, "calls", day]),
        template=int(counters[store_id, "template", template]),
    )


def keys_of(store_id: str, day: str, template: str) -> tuple[tuple[str, str, str], ...]:
    """Where the gate's counters are."""
    return (
        (store_id, "calls", day),
        (store_id, "messages", day),
        (store_id, "money", day),
        (store_id, "template", template),
    )
