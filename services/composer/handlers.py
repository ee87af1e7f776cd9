"""The composer's shell: a batch of events in; load, decide, write, save, emit.

It keeps the newest revision of each incident, and what became of it: told, chosen, asked for. An incident that another
event names first is known from then on, and a request for it waits until it comes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from services.composer.rules.steps import Known, after_incident, count_on, coupon_of, first_digit
from services.composer.rules.write import Brief, Press
from shared.events.cases import CaseClosed, ChoiceMade, NoticeRequested
from shared.events.deliveries import NoticeSent, WavePaused
from shared.events.envelope import Event, event, event_id, to_message
from shared.events.incidents import Incident, IncidentResolved
from shared.events.notices import OFFERING, NoticeComposed
from shared.events.stores import Mode, NewStores, Setting, StoreConfigured, default_store, mode_of
from shared.store.timers import Due
from shared.store.unit import UnitOfWork

SOURCE: Final = "headsup/composer"


@dataclass(slots=True)
class File:
    """One incident's papers: what is known, its newest revision (None: not loaded, or not here yet)."""

    known: Known
    incident: Incident | None = None
    fresh: bool = False
    """`incident` is new and has to be kept."""
    requests: list[NoticeRequested] = field(default_factory=list)
    """To be written now."""
    free: bool = False
    """Its digits mean it no longer."""


class Incidents(Protocol):
    """What the composer keeps. All calls run inside the unit's transaction."""

    async def load(self, unit: UnitOfWork, incident_ids: Sequence[str]) -> dict[str, Known]:
        """Lock these incidents in the order given (sorted by the caller); new ones are made."""
        ...

    async def newest(self, unit: UnitOfWork, incident_ids: Sequence[str]) -> Mapping[str, Incident]:
        """The kept revision of those that have one."""
        ...

    async def save(self, unit: UnitOfWork, known: Mapping[str, Known], fresh: Mapping[str, Incident]) -> None:
        """Write what is known, and the revisions that are new."""
        ...

    async def digits(self, unit: UnitOfWork, lookups: Sequence[str]) -> Mapping[str, Mapping[int, str]]:
        """The digits in use in replies from these addresses, each with its incident."""
        ...

    async def take(self, unit: UnitOfWork, digits: Sequence[tuple[str, int, str]]) -> None:
        """Note these (lookup, number, incident). Raises `Raced` where another transaction was faster."""
        ...

    async def free(self, unit: UnitOfWork, incident_ids: Sequence[str]) -> None:
        """Give back these incidents' digits."""
        ...

    async def stores(self, unit: UnitOfWork, store_ids: Sequence[str]) -> Mapping[str, StoreConfigured]:
        """Those of these stores that somebody has set up."""
        ...

    async def settings(self, unit: UnitOfWork, events: Sequence[Event[Setting]]) -> None:
        """Take settings into the service's view, and note in the audit what they changed."""
        ...

    async def waves(self, unit: UnitOfWork, waves: Sequence[WavePaused]) -> None:
        """Remember these waves' stores."""
        ...


class Composer:
    """Guarantees: applying an event twice changes nothing and emits nothing new; of an incident's revisions the newest
    holds, in any order; a notice that breaks a must goes out with its hold; a notice's id follows from its cause."""

    def __init__(self, incidents: Incidents, press: Press, new_stores: NewStores) -> None:
        self._incidents = incidents
        self._press = press
        self._new_stores = new_stores

    async def apply(self, unit: UnitOfWork, events: Sequence[Event[Any]]) -> None:
        """Apply one partition's events, each incident's in their sequence."""
        by_incident: defaultdict[str, list[Any]] = defaultdict(list)
        settings, waves = [], []
        for one in events:
            data = one.data
            if isinstance(data, Setting):
                settings.append(one)
            elif isinstance(data, WavePaused):
                waves.append(data)
            elif isinstance(data, Incident | NoticeSent | ChoiceMade | CaseClosed | NoticeRequested):
                by_incident[data.incident_id].append(data)
        if settings:
            await self._incidents.settings(unit, settings)
        if waves:
            await self._incidents.waves(unit, waves)
        if by_incident:
            await self._follow(unit, by_incident)

    async def wake(self, unit: UnitOfWork, due: Sequence[Due]) -> None:
        """The composer has no timers."""

    async def _follow(self, unit: UnitOfWork, by_incident: Mapping[str, Sequence[Any]]) -> None:
        with unit.measure("load"):
            known = await self._incidents.load(unit, sorted(by_incident))
        files = {incident_id: File(known[incident_id]) for incident_id in sorted(by_incident)}
        with unit.measure("decide"):
            for incident_id, file in files.items():
                for data in by_incident[incident_id]:
                    take(file, data)
        with unit.measure("load"):
            asked = [i for i, file in files.items() if file.requests and file.incident is None]
            for incident_id, incident in (await self._incidents.newest(unit, asked) if asked else {}).items():
                files[incident_id].incident = incident
            freed = [i for i, file in files.items() if file.free]
            if freed:
                await self._incidents.free(unit, freed)
        briefs = await self._briefs(unit, files)
        with unit.measure("decide"):
            for brief in briefs:
                self._write(unit, brief)
        with unit.measure("save"):
            fresh = {i: file.incident for i, file in files.items() if file.fresh and file.incident is not None}
            await self._incidents.save(unit, {i: file.known for i, file in files.items()}, fresh)

    async def _briefs(self, unit: UnitOfWork, files: Mapping[str, File]) -> list[Brief]:
        """Everything that is to be written, with its store's settings and its digits. A request is written in every
        mode: whoever asked waits to hear from the dispatcher what became of it."""
        present = {i: file.incident for i, file in files.items() if file.incident is not None}
        if not present:
            return []
        with unit.measure("load"):
            set_up = await self._incidents.stores(unit, sorted({one.store_id for one in present.values()}))
        briefs = []
        for incident_id, incident in present.items():
            file, store = files[incident_id], set_up.get(incident.store_id)
            mode = mode_of(store, incident.scenario, self._new_stores)
            store = store or default_store(incident.store_id)
            if file.fresh and mode is not Mode.OFF:
                purpose = after_incident(file.known, incident, ZoneInfo(store.time_zone)).purpose
                if purpose is not None:
                    briefs.append(Brief(incident, purpose, store, mode, unit.now, file.known))
            for request in file.requests:
                briefs.append(Brief(incident, request.purpose, store, mode, unit.now, file.known, request=request))
        return await self._numbered(unit, briefs)

    async def _numbered(self, unit: UnitOfWork, briefs: Sequence[Brief]) -> list[Brief]:
        """The briefs with their options' first digit. An incident keeps its digits; a new one continues after those
        that mean something else in replies from one of its addresses. Shadow takes none: nobody can answer."""
        offers = [b for b in briefs if b.purpose in OFFERING and b.mode is not Mode.SHADOW]
        lookups = sorted({c.lookup for b in offers for c in b.incident.facts.contacts})
        if not lookups:
            return list(briefs)
        with unit.measure("load"):
            used = {lookup: dict(taken) for lookup, taken in (await self._incidents.digits(unit, lookups)).items()}
        news: list[tuple[str, int, str]] = []
        first: dict[str, int | None] = {}
        for brief in offers:
            incident_id, count = brief.incident.incident_id, self._press.catalogue.options(brief.incident.scenario)
            mine = [used.setdefault(contact.lookup, {}) for contact in brief.incident.facts.contacts]
            start = first[incident_id] = first_digit(incident_id, mine, count)
            for number in range(start, start + count) if start is not None else ():
                for contact in brief.incident.facts.contacts:
                    if number not in used[contact.lookup]:
                        used[contact.lookup][number] = incident_id
                        news.append((contact.lookup, number, incident_id))
        if news:
            await self._incidents.take(unit, sorted(news))
        return [
            replace(b, first_number=first[b.incident.incident_id]) if b.incident.incident_id in first else b
            for b in briefs
        ]

    def _write(self, unit: UnitOfWork, brief: Brief) -> None:
        notice = self._press.write(brief)
        if notice is None:
            return
        brief.known.offered = max(brief.known.offered, coupon_of(notice.options))
        if brief.purpose in OFFERING and notice.told_date is not None:
            brief.known.dates[notice.notice_id] = notice.told_date
        identifier = event_id(NoticeComposed.TYPE, notice.notice_id)
        unit.emit(to_message(event(notice, id=identifier, source=SOURCE, time=unit.now)))


def take(file: File, data: Any) -> None:
    """One event into an incident's file."""
    known = file.known
    if isinstance(data, Incident):
        if data.revision > known.revision:
            known.revision, file.incident, file.fresh = data.revision, data, True
            file.free |= isinstance(data, IncidentResolved)
    elif isinstance(data, NoticeSent):
        if data.purpose in OFFERING:
            known.told = True
            count_on(known, data.at, data.told_date)
    elif isinstance(data, ChoiceMade):
        # Once: the digits that it frees may mean something again in an update to who waits.
        if known.chosen is None:
            known.chosen, file.free = data.code, True
        count_on(known, data.at, known.dates.get(data.notice_id))
    elif isinstance(data, CaseClosed):
        file.free = True
    elif isinstance(data, NoticeRequested) and data.request_id not in known.answered:
        body = data.model_dump_json(exclude_none=True)
        if body not in known.waiting:
            known.waiting.append(body)
    if known.revision:
        file.requests += [NoticeRequested.model_validate_json(body) for body in known.waiting]
        known.answered += [request.request_id for request in file.requests if request.request_id not in known.answered]
        known.waiting.clear()
