"""Which notice a customer's message answers."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.events.notices import Purpose

_CHINESE: Final = {"一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}
_DIGITS: Final = re.compile(r"\d+")
_NAMED: Final = re.compile(r"(?:选|选择|方案|第)?([一二两三四五六七八九])(?:号|个|种)?")
SCORES: Final = range(1, 6)


@dataclass(frozen=True, slots=True)
class Asked:
    """A notice that went out to where the message came from: what it asked. `numbers` are its options' digits."""

    notice_id: str
    incident_id: str
    order_id: str
    store_id: str
    purpose: Purpose
    numbers: frozenset[int]
    sent_at: datetime

    def takes(self, number: int) -> bool:
        return number in (SCORES if self.purpose is Purpose.SATISFACTION else self.numbers)


@dataclass(frozen=True, slots=True)
class Routed:
    """What a message is taken to answer, and all incidents that it may be about, the most likely first."""

    notice: Asked
    incident_ids: tuple[str, ...]


def number_of(text: str) -> int | None:
    """The one number that a short message names, in any usual form: `1`, `①`, `１`, `一`, `选2`, `方案二`."""
    plain = re.sub(r"[\s\W_]+", "", unicodedata.normalize("NFKC", text))
    digits = _DIGITS.findall(plain)
    if len(digits) == 1 and len(digits[0]) <= 2 and len(plain) <= 12:
        return int(digits[0])
    named = _NAMED.fullmatch(plain)
    return _CHINESE[named[1]] if named and not digits else None


def route(text: str, asked: Sequence[Asked], answers: str | None = None) -> Routed | None:
    """Where a message goes. `answers` is the notice that the channel itself says it belongs to. Else the notice whose
    digit it names, and of several or none the newest; None: nothing was asked there. Of each incident only the last
    question counts."""
    newest: dict[str, Asked] = {}
    for one in sorted(asked, key=lambda a: (a.sent_at, a.notice_id)):
        newest[one.incident_id] = one
    order = sorted(newest.values(), key=lambda a: (a.sent_at, a.notice_id), reverse=True)
    number = number_of(text)
    if number is not None:
        order.sort(key=lambda a: not a.takes(number))
    if answers is not None:
        named = next((a for a in asked if a.notice_id == answers), None)
        if named is not None:
            order = [named, *(a for a in order if a.incident_id != named.incident_id)]
    if not order:
        return None
    return Routed(order[0], tuple(a.incident_id for a in order)[:20])
