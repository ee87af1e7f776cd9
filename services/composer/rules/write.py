"""A whole notice from an incident: facts, options, texts, promises, and whether it may go."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from services.composer.rules import checks, people, remedies
from services.composer.rules.catalogue import Catalogue, Language, Policy, Wording
from services.composer.rules.steps import Known
from shared.events.cases import NoticeRequested
from shared.events.envelope import event_id
from shared.events.incidents import Incident, IncidentResolved
from shared.events.notices import (
    OFFERING,
    NoticeComposed,
    Option,
    Promise,
    PromiseKind,
    Purpose,
    RemedyKind,
    Texts,
)
from shared.events.stores import Mode, StoreConfigured
from shared.sms import segments

_GAP: Final = re.compile(r"\n{3,}")


class Unrenderable(ValueError):  # noqa: N818 - it says what the template is
    """A template that does not render; the text says why and repeats no value."""


class Words(Protocol):
    """Puts facts into words. `fill` raises `Unrenderable`."""

    def fill(self, template: str, facts: Mapping[str, Any]) -> str: ...
    def day(self, moment: datetime, zone: ZoneInfo, language: str) -> str: ...
    def moment(self, moment: datetime, zone: ZoneInfo, language: str) -> str: ...
    def money(self, amount: Decimal, currency: str, language: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Brief:
    """What is to be written. `first_number` is the digit of the first option; None where no digits are left."""

    incident: Incident
    purpose: Purpose
    store: StoreConfigured
    mode: Mode
    now: datetime
    known: Known
    first_number: int | None = 1
    request: NoticeRequested | None = None

    @property
    def notice_id(self) -> str:
        """Follows from what calls for it: writing it twice is the same notice."""
        if self.request is not None:
            return event_id(self.request.request_id, self.purpose)
        return event_id(self.incident.incident_id, str(self.incident.revision), self.purpose)


@dataclass(frozen=True, slots=True)
class Press:
    """What notices are written with."""

    catalogue: Catalogue
    words: Words

    def write(self, brief: Brief) -> NoticeComposed | None:
        """The notice, held where a must is broken. None where the scenario has no wording at all."""
        incident = brief.incident
        language = self.catalogue.language(incident.scenario, incident.facts.language, brief.store.language)
        return None if language is None else _Writer(brief, self.catalogue, language, self.words).notice()


class _Writer:
    def __init__(self, brief: Brief, catalogue: Catalogue, language: str, words: Words) -> None:
        self.brief, self.words, self.tag = brief, words, language
        self.names = catalogue.names
        self.language: Language = catalogue.languages[language]
        self.policy: Policy = catalogue.policies[brief.incident.scenario]
        self.wording: Wording = catalogue.wordings[brief.incident.scenario, language]
        self.zone = ZoneInfo(brief.store.time_zone)
        self.offers = brief.purpose in OFFERING
        self.worth = remedies.compensation(brief.incident.facts, self.policy, brief.known.offered)
        self.told = self._told()
        self.values: list[str] = []
        self.broken: list[checks.Broken] = []

    def notice(self) -> NoticeComposed:
        brief, incident = self.brief, self.brief.incident
        facts = self._facts()
        options = self._options(facts) if self.offers else ()
        facts["options"] = [
            {"number": o.number, "label": o.label, "promise": o.promise, "short": self._option(o.code, "short", facts)}
            for o in options
        ]
        signature = self._fill(self.language.signature, facts)
        texts = self._texts(signature, facts)
        self._check(options, texts, signature)
        reserved = self._reserved() if options else Decimal(0)
        return NoticeComposed(
            notice_id=brief.notice_id,
            incident_id=incident.incident_id,
            revision=incident.revision,
            store_id=incident.store_id,
            order_id=incident.order_id,
            scenario=incident.scenario,
            purpose=brief.purpose,
            template=f"{incident.scenario}/{brief.purpose}",
            version=self.wording.version,
            language=self.tag,
            texts=texts,
            options=options,
            promises=self._promises(self.policy.silence, facts) if self.offers else (),
            contacts=incident.facts.contacts,
            customer_id=incident.facts.customer_id,
            important=remedies.important(incident.facts, brief.store.important) is not None,
            told_date=self.told,
            contact_due_at=incident.contact_due_at if brief.purpose is Purpose.FIRST_CONTACT else None,
            occurred_at=incident.occurred_at,
            detected_at=incident.detected_at,
            money_reserved=reserved,
            currency=incident.facts.currency,
            segments=segments(texts.sms or ""),
            hold=checks.hold_for(self.broken),
            request_id=brief.request.request_id if brief.request else None,
        )

    # ---- facts

    def _told(self) -> datetime | None:
        """The date that the message names, kept until its day ends in the store's zone."""
        request, date = self.brief.request, self.brief.incident.new_date
        if self.brief.purpose is Purpose.NEXT_STEP:
            if self._chosen is not RemedyKind.WAIT:
                return None
            date = (request.due_at if request else None) or date
        elif not self.offers:
            return None
        return None if date is None else remedies.end_of_day(date, self.zone)

    @property
    def _chosen(self) -> RemedyKind | None:
        request = self.brief.request
        return (request.code if request else None) or self.brief.known.chosen

    def _facts(self) -> dict[str, Any]:
        """Everything that a template may name; empty text where there is nothing to say."""
        brief, incident, order = self.brief, self.brief.incident, self.brief.incident.facts
        lines = people.affected_lines(order)
        named = {
            "store": people.plain(brief.store.name) or people.plain(brief.store.store_id),
            "name": people.spoken_name(order.nickname, self.names) or "",
            "order": people.plain(order.order_id),
            "order_tail": people.tail(order.order_id),
            "product": people.product(lines[0]) if lines else "",
            "product_short": people.short_product(lines[0]) if lines else "",
            "variant": people.variant(lines[0]) if lines else "",
        }
        self.values = list(named.values())
        greeting = self.language.greeting if named["name"] else self.language.nameless
        claim = self.wording.claim(checks.cause_of(incident))
        request = brief.request
        # A next step says what was chosen, and nothing but that; every other text what waiting is worth.
        step = request if brief.purpose is Purpose.NEXT_STEP else None
        coupon = step.amount if step else self.worth.coupon
        due = (request.due_at if request else None) or self._refund_due()
        return {
            **named,
            "greeting": self._fill(greeting, named),
            "more": max(len(lines) - 1, 0),
            "cause": claim.says if claim else "",
            "cause_short": claim.short if claim else "",
            "date": self._day(self.told),
            "promised_date": self._promised(),
            "total": self._money(remedies.refund_of(order)),
            "rest": order.refunded > 0,
            "coupon": self._money(coupon or None),
            "gift": step.gift if step else self.worth.gift,
            "chosen": str(self._chosen or ""),
            "amount": self._money(step.amount if step else None),
            "due": self._day(self.told),
            "due_moment": self.words.moment(due, self.zone, self.tag),
            "hours": self._hours(PromiseKind.REFUND),
            "coupon_hours": self._hours(PromiseKind.COUPON),
            "how": str(incident.how) if isinstance(incident, IncidentResolved) else "",
        }

    def _promised(self) -> str:
        """What the customer was promised. Never what we only assumed, and not the very day that is told now."""
        incident = self.brief.incident
        if incident.old_date is None or incident.promise_assumed:
            return ""
        shown = self._day(incident.old_date)
        return "" if shown == self._day(self.told) else shown

    def _refund_due(self) -> datetime:
        due = self.policy.due.get(PromiseKind.REFUND)
        return self.brief.now + timedelta(seconds=(due.within_seconds if due else None) or 0)

    def _hours(self, kind: PromiseKind) -> str:
        due = self.policy.due.get(kind)
        return "" if due is None or due.within_seconds is None else f"{due.within_seconds / 3600:g}"

    def _day(self, moment: datetime | None) -> str:
        return "" if moment is None else self.words.day(moment, self.zone, self.tag)

    def _money(self, amount: Decimal | None) -> str:
        return "" if amount is None else self.words.money(amount, self.brief.incident.facts.currency, self.tag)

    # ---- options and promises

    def _options(self, facts: Mapping[str, Any]) -> tuple[Option, ...]:
        first = self.brief.first_number
        if first is None:
            self.broken.append(checks.Broken("options", "no digits are left for replies from this address"))
        return tuple(
            Option(
                number=(first or 1) + index,
                code=choice.code,
                label=self._option(choice.code, "label", facts),
                promise=self._option(choice.code, "promise", facts),
                promises=self._promises(choice.promises, facts),
                amount=self._amount_of(choice.code),
                gift=PromiseKind.GIFT in choice.promises and self.worth.gift,
            )
            for index, choice in enumerate(self.policy.options)
        )

    def _promises(self, kinds: Collection[PromiseKind], facts: Mapping[str, Any]) -> tuple[Promise, ...]:
        found = []
        for kind in kinds:
            within = self.policy.due[kind].within_seconds
            if self.worth.brings(kind) and (within is not None or self.told is not None):
                text, due_at = self._fill(self.wording.promises[kind], facts), self.told if within is None else None
                found.append(
                    Promise(kind=kind, text=text, due_at=due_at, within_seconds=within, amount=self._amount(kind))
                )
        return tuple(found)

    def _amount(self, kind: PromiseKind) -> Decimal | None:
        if kind is PromiseKind.REFUND:
            return remedies.refund_of(self.brief.incident.facts)
        return self.worth.coupon if kind is PromiseKind.COUPON else None

    def _amount_of(self, code: RemedyKind) -> Decimal | None:
        if code is RemedyKind.REFUND:
            return remedies.refund_of(self.brief.incident.facts)
        return (self.worth.coupon or None) if code is RemedyKind.WAIT else None

    def _reserved(self) -> Decimal:
        """What sending it may cost beyond what an earlier notice has reserved. Shadow reserves nothing."""
        if self.brief.mode is Mode.SHADOW:
            return Decimal(0)
        first = self.brief.purpose is Purpose.FIRST_CONTACT
        return self.worth.coupon if first else self.worth.coupon - self.brief.known.offered

    # ---- texts

    def _option(self, code: RemedyKind, which: str, facts: Mapping[str, Any]) -> str:
        return self._fill(getattr(self.wording.options[code], which), facts)

    def _texts(self, signature: str, facts: Mapping[str, Any]) -> Texts:
        templates = self.wording.texts.get(self.brief.purpose)
        if templates is None:
            return Texts()
        sms = self._text(templates.sms, facts)
        dm = self._text(templates.dm, facts)
        chat = dm if templates.chat is None else self._text(templates.chat, facts)
        return Texts(sms=None if sms is None else signature + " ".join(sms.split()), dm=dm, chat=chat)

    def _text(self, template: str | None, facts: Mapping[str, Any]) -> str | None:
        if template is None:
            return None
        return _GAP.sub("\n\n", self._fill(template, facts)).strip() or None

    def _fill(self, template: str, facts: Mapping[str, Any]) -> str:
        try:
            return self.words.fill(template, facts)
        except Unrenderable as error:
            broken = checks.Broken("text", str(error))
            if broken not in self.broken:
                self.broken.append(broken)
            return ""

    def _check(self, options: tuple[Option, ...], texts: Texts, signature: str) -> None:
        incident, vague = self.brief.incident, self.language.vague
        self.broken += checks.text(texts, signature)
        self.broken += checks.honest(incident, self.wording, texts, self.values)
        if self.offers:
            self.broken += checks.evident(incident)
            self.broken += checks.options(options, texts)
        if self.brief.purpose is Purpose.NEXT_STEP and self._chosen not in self.wording.options:
            self.broken.append(checks.Broken("options", "nobody knows which option it is the next step of"))
        if self.offers or self.told is not None:
            shown = self._day(self.told)
            self.broken += checks.date(self.told, shown, self.brief.now, texts, vague=vague, values=self.values)
