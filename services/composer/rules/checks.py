"""The three musts, checked on what was really written, and what an SMS has to look like.

A broken check holds the notice for a person: a message that breaks a must is never sent.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from services.composer.rules.catalogue import Wording
from services.composer.rules.people import FORBIDDEN, has_link, has_mobile
from shared.events.incidents import CAUSES, Cause, Incident
from shared.events.notices import NoticeHold, Option, RemedyKind, Texts
from shared.sms import segments

LONGEST_SMS: Final = 500
MOST_SEGMENTS: Final = 10

Must = Literal["honest", "options", "date", "text"]


@dataclass(frozen=True, slots=True)
class Broken:
    """A check that failed: the must, and the reason in words (no text of a message, it may name a person)."""

    must: Must
    reason: str


def hold_for(broken: Sequence[Broken]) -> NoticeHold | None:
    """All reasons in one hold; its must is the first one's."""
    if not broken:
        return None
    return NoticeHold(reason="; ".join(b.reason for b in broken), must=broken[0].must)


def cause_of(incident: Incident) -> Cause:
    """The incident's cause; one that we do not know is unknown."""
    try:
        return Cause(incident.cause)
    except ValueError:
        return Cause.UNKNOWN


def evident(incident: Incident) -> list[Broken]:
    """The cause that is to be stated is one that this scenario can have, and something shows it."""
    cause, found = cause_of(incident), []
    if cause not in CAUSES[incident.scenario]:
        found.append(Broken("honest", f"{cause} is no cause that a {incident.scenario} can have"))
    if cause is not Cause.UNKNOWN and not incident.evidence:
        found.append(Broken("honest", f"nothing shows that the cause is {cause}"))
    return found


def honest(incident: Incident, wording: Wording, texts: Texts, values: Collection[str]) -> list[Broken]:
    """No text claims a cause that the incident's does not allow, or blames somebody who has no part in the scenario.

    `values` are what customers and shops wrote: a product may be called anything."""
    cause, found = cause_of(incident), []
    for channel, text in _each(texts):
        for claim in wording.claims:
            if cause not in claim.allowed_by and any(_says(text, said, values) for said in (claim.says, claim.short)):
                found.append(Broken("honest", f"the {channel} text claims {claim.allowed_by[0]}, the cause is {cause}"))
        found += [
            Broken("honest", f"the {channel} text says “{word}”, which has no part in a {incident.scenario}")
            for word in wording.never_say
            if _says(text, word, values)
        ]
    return found


def options(offered: Sequence[Option], texts: Texts) -> list[Broken]:
    """At least two choices, one of them a refund, each with what it brings, all of them in every text."""
    found = []
    if len(offered) < 2:
        found.append(Broken("options", f"{len(offered)} options are fewer than two"))
    if all(option.code is not RemedyKind.REFUND for option in offered):
        found.append(Broken("options", "the options lack a refund"))
    if len({option.number for option in offered}) < len(offered):
        found.append(Broken("options", "two options have one number"))
    found += [Broken("options", f"{o.code} promises nothing") for o in offered if not o.promise or not o.promises]
    found += [
        Broken("options", f"the {channel} text does not offer {option.code} by its number")
        for channel, text in _each(texts)
        for option in offered
        if not re.search(rf"(?<!\d){option.number}\W{{0,2}}{re.escape(option.label)}", text)
    ]
    return found


def date(
    told: datetime | None, shown: str, now: datetime, texts: Texts, *, vague: Collection[str], values: Collection[str]
) -> list[Broken]:
    """Every text names the one exact date, which is not over, and no vague one. `shown` is the date as written."""
    if told is None:
        return [Broken("date", "no date is known")]
    found = [] if told > now else [Broken("date", "the date that it names is over")]
    for channel, text in _each(texts):
        if shown not in text:
            found.append(Broken("date", f"the {channel} text does not name the date"))
        found += [
            Broken("date", f"the {channel} text says “{word}”, which is no date")
            for word in vague
            if _says(text, word, values)
        ]
    return found


def text(texts: Texts, signature: str) -> list[Broken]:
    """There is something to send, and the SMS is one that gateways take and nobody takes for fraud."""
    if not any(_each(texts)):
        return [Broken("text", "there is no text at all")]
    found = []
    if texts.sms is not None:
        body = texts.sms.removeprefix(signature)
        body = texts.sms.removesuffix(signature) if body == texts.sms else body
        rules = {
            "has no signature at an end": body == texts.sms,
            "has its signature twice": signature in body,
            f"is longer than {LONGEST_SMS} characters": len(texts.sms) > LONGEST_SMS,
            f"takes more than {MOST_SEGMENTS} segments": segments(texts.sms) > MOST_SEGMENTS,
            "has a sign that gateways refuse": any(c in FORBIDDEN for c in body),
            "has a link": has_link(body),
            "has a mobile number": has_mobile(body),
            "is empty": not body.strip(),
        }
        found += [Broken("text", f"the SMS {what}") for what, broken in rules.items() if broken]
    return found


def _each(texts: Texts) -> list[tuple[str, str]]:
    """The texts that there are, by channel; one that is said on two channels once."""
    named = (("SMS", texts.sms), ("DM", texts.dm), ("chat", texts.chat if texts.chat != texts.dm else None))
    return [(channel, one) for channel, one in named if one is not None]


def _says(text: str, word: str, values: Collection[str]) -> bool:
    """Whether our own words say it, whatever the case: a value that holds the word itself does not count."""
    word, text = word.lower(), text.lower()
    if word not in text:
        return False
    for value in values:
        if word in value.lower():
            text = text.replace(value.lower(), "\x00")
    return word in text
