"""What the catalogue is made of: policy and wording of each scenario, and what a language has in common.

All of it is data (services/composer/catalogue/): a scenario or a language is new files, not new code. An entry that
nobody knows is refused, so that a slip of the pen is not taken for silence.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from shared.events.base import Flag, Money, Part, Text
from shared.events.incidents import CAUSES, Cause, Scenario
from shared.events.notices import OFFERING, PromiseKind, Purpose, RemedyKind

DEFAULT_LANGUAGE: Final = "zh-CN"


class Entry(Part):
    """A table of the catalogue."""

    model_config = Part.model_config | {"extra": "forbid"}


class Tier(Entry):
    """What waiting is worth for orders `below` this total (it excluded) or up `to` it (it included); neither: all."""

    below: Money | None = None
    to: Money | None = None
    coupon: Money
    gift: Flag = False

    def holds(self, total: Decimal) -> bool:
        return (self.below is None or total < self.below) and (self.to is None or total <= self.to)


class Generous(Entry):
    """Orders with one of these tags get so many times the coupon, rounded up to whole units."""

    tags: tuple[str, ...] = ()
    factor: Money = Decimal(1)


class Due(Entry):
    """When a promise is due: so long after what starts it, or (None) at the end of the day that the message names."""

    within_seconds: int | None = None


class Choice(Entry):
    """An option, and the promises that it brings where there is something to promise."""

    code: RemedyKind
    promises: tuple[PromiseKind, ...]


class Policy(Entry):
    """What a scenario offers. `tiers` are by currency; in a currency without any nothing but the options is offered."""

    tiers: dict[str, tuple[Tier, ...]]
    generous: Generous = Generous()
    options: tuple[Choice, ...]
    due: dict[PromiseKind, Due]
    silence: tuple[PromiseKind, ...] = ()
    """What an offering notice promises to those who do not answer."""

    def model_post_init(self, context: Any, /) -> None:
        if any(tiers[-1].below is not None or tiers[-1].to is not None for tiers in self.tiers.values() if tiers):
            raise ValueError("the last tier must hold for every larger order: give it neither below nor to")
        named = {kind for option in self.options for kind in option.promises} | set(self.silence)
        if missing := named - self.due.keys():
            raise ValueError(f"due lacks {', '.join(sorted(missing))}")


class Claim(Entry):
    """Words that state a cause, in full and for an SMS, and the causes of an incident that allow them."""

    says: Text
    short: Text
    allowed_by: tuple[Cause, ...]


class OptionWords(Entry):
    label: Text
    promise: Text
    short: Text


class TextsOf(Entry):
    """The templates of one purpose. No `chat`: the DM's text is said there. Neither: there is no text for it."""

    sms: str | None = None
    dm: str
    chat: str | None = None


class Wording(Entry):
    """One scenario in one language. Every text is a Liquid template but for `never_say` and the claims."""

    version: int
    claims: tuple[Claim, ...]
    never_say: tuple[str, ...] = ()
    """Words that would put the blame on somebody who has no part in this scenario."""
    options: dict[RemedyKind, OptionWords]
    promises: dict[PromiseKind, Text]
    texts: dict[Purpose, TextsOf]

    def claim(self, cause: Cause) -> Claim | None:
        """The words for this cause."""
        return next((c for c in self.claims if cause in c.allowed_by), None)


class Language(Entry):
    """What all scenarios have in common in one language."""

    day: Text
    """How a date is written, as a pattern of Unicode CLDR; `moment` is a date with its time."""
    moment: Text
    currencies: dict[str, Text]
    """How an amount is written, as a template of `amount`; `other` is for the currencies that are not named."""
    signature: Text
    greeting: Text
    """For a customer whose nickname can be used; `nameless` for all others."""
    nameless: Text
    vague: tuple[str, ...]
    """Words that are no date."""


class Names(Entry):
    """Which nicknames nobody should be greeted by: too long, made up by a machine, or abusive."""

    longest: int
    generated: tuple[str, ...]
    """Regular expressions for the whole nickname, whatever the case."""
    abusive: tuple[str, ...]

    def model_post_init(self, context: Any, /) -> None:
        for pattern in self.generated:
            re.compile(pattern)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that the composer knows to say and to offer."""

    names: Names
    languages: Mapping[str, Language]
    policies: Mapping[Scenario, Policy]
    wordings: Mapping[tuple[Scenario, str], Wording] = field(default_factory=dict)

    def options(self, scenario: Scenario) -> int:
        """How many options the scenario offers."""
        policy = self.policies.get(scenario)
        return len(policy.options) if policy else 0

    def language(self, scenario: Scenario, *wanted: str | None) -> str | None:
        """The first of these languages that the scenario is written in, or one of its kind (en-GB: en); else the
        default. None where the scenario is not written at all."""
        written = [language for known, language in self.wordings if known is scenario]
        for tag in (*wanted, DEFAULT_LANGUAGE):
            for language in written:
                if tag is not None and tag.lower() == language.lower():
                    return language
            for language in written:
                if tag is not None and _primary(tag) == _primary(language):
                    return language
        return None


def faults(catalogue: Catalogue) -> list[str]:
    """What the files lack together, in words; empty where all is there."""
    found = []
    for (scenario, language), wording in catalogue.wordings.items():
        where, policy = f"{scenario}/{language}", catalogue.policies.get(scenario)
        if policy is None:
            found.append(f"{scenario} has no policy.toml")
            continue
        if language not in catalogue.languages:
            found.append(f"{where}: languages/{language}.toml is missing")
        lacks: dict[str, Collection[str]] = {
            "causes": {cause for cause in CAUSES[scenario] if wording.claim(cause) is None},
            "options": {option.code for option in policy.options} - wording.options.keys(),
            "promises": policy.due.keys() - wording.promises.keys(),
            "texts": OFFERING - wording.texts.keys(),
        }
        found += [f"{where}: {what} lacks {', '.join(sorted(names))}" for what, names in lacks.items() if names]
        for claim in wording.claims:
            if foreign := set(claim.allowed_by) - CAUSES[scenario]:
                found.append(f"{where}: a claim is allowed by {', '.join(sorted(foreign))}, no cause of {scenario}")
    found += [
        f"{scenario} has no {DEFAULT_LANGUAGE}.toml"
        for scenario in catalogue.policies
        if (scenario, DEFAULT_LANGUAGE) not in catalogue.wordings
    ]
    return found


def _primary(tag: str) -> str:
    return tag.partition("-")[0].lower()
