"""How many segments an SMS takes (3GPP TS 23.038 and 23.040).

A text of nothing but the GSM 7-bit alphabet has 160 units in one segment and 153 in each of several; characters of its
extension table take two. Any other text is UCS-2: 70 units and 67, a character outside of the basic plane takes two. A
character of two units is never split between segments.
"""

from collections.abc import Iterable
from typing import Final

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED: Final = frozenset("\f^{}\\[~]|€")


def segments(text: str) -> int:
    """The number of segments; 0 for no text."""
    if all(c in _BASIC or c in _EXTENDED for c in text):
        return _count((2 if c in _EXTENDED else 1 for c in text), 160, 153)
    return _count((2 if ord(c) > 0xFFFF else 1 for c in text), 70, 67)


def _count(units: Iterable[int], single: int, joined: int) -> int:
    sizes = list(units)
    total = sum(sizes)
    if total <= single:
        return 1 if total else 0
    parts, room = 1, joined
    for size in sizes:
        if size > room:
            parts, room = parts + 1, joined
        room -= size
    return parts
