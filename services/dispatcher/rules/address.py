"""A contact as it can be written to: the number in its international form, or why it cannot be used."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import phonenumbers

from shared.events.contacts import Contact, RecipientKind
from shared.events.deliveries import Reason

_EXTENSION: Final = re.compile(
    r"^((?:(?:\+|00)?86)?1\d{10})(?:-|,|#|;ext=|ext\.?|x)(\d{3,4})$|^(.{7,}?)[,，]?转(\d{3,4})$", re.IGNORECASE
)
"""The platforms' virtual numbers: `15500001234-5678`, `15500001234转5678`."""


@dataclass(frozen=True, slots=True)
class Address:
    """One contact, opened. `to` is empty where `problem` says why it cannot be used. `reply_key` is the look-up value
    that an answer from there is known by: empty for what is shared (a virtual number's base) or is no phone."""

    kind: RecipientKind
    recipient: str
    to: str = field(default="", repr=False)
    reply_key: str = ""
    expires_at: datetime | None = None
    problem: Reason | None = None


def split_extension(value: str) -> tuple[str, str]:
    """The number and its extension of 3 or 4 digits; the whole and nothing where it has none."""
    plain = re.sub(r"[\s()（）]", "", value)
    found = _EXTENSION.match(plain)
    if found is None:
        return plain, ""
    return found[1] or found[3], found[2] or found[4]


def international(value: str, countries: Sequence[str]) -> tuple[str, Reason | None]:
    """`+8613812345678` for a phone as people write it, without its extension. Numbers outside of these countries are
    refused: writing to them is how toll fraud earns."""
    number, _ = split_extension(value)
    foreign = False
    for country in countries or ("CN",):
        try:
            parsed = phonenumbers.parse(number, country)
        except phonenumbers.NumberParseException:
            continue
        if not phonenumbers.is_possible_number(parsed):
            continue
        regions = phonenumbers.region_codes_for_country_code(parsed.country_code or 0)
        if country in regions:
            return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164), None
        foreign = True
    return "", Reason.COUNTRY if foreign else Reason.BAD_ADDRESS


def address(contact: Contact, value: str, countries: Sequence[str], lookup: Callable[[str, str], str]) -> Address:
    """The contact, whose value in the clear is this. `lookup` makes look-up values of a kind and a value."""
    if contact.kind is not RecipientKind.PHONE:
        return Address(contact.kind, contact.lookup, value, "", contact.expires_at)
    to, problem = international(value, countries)
    shared = bool(split_extension(value)[1])
    reply_key = lookup(contact.kind, to) if to and not shared else ""
    return Address(contact.kind, contact.lookup, to, reply_key, contact.expires_at, problem)
