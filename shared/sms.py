"""How a text becomes the segments of an SMS.

Source: 3GPP TS 23.038 (the GSM 7-bit default alphabet and its extension) and TS 23.040 (concatenation)."""

from typing import Final

BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION: Final = frozenset("\f^{}\\[~]|€")
"""Each takes two of the 160 places."""

GSM_SINGLE, GSM_PART = 160, 153
UCS2_SINGLE, UCS2_PART = 70, 67


def is_gsm(text: str) -> bool:
    """Whether the 7-bit alphabet has all of it; else it goes as UCS-2."""
    return BASIC.issuperset(set(text) - EXTENSION)


def segments(text: str, *, cuts_pairs: bool = False) -> int:
    """How many segments the text takes; 0 for none. `cuts_pairs`: by a gateway that cuts after so many units of 16
    bits, in the middle of an emoji where it falls so; else a character of two units is never split."""
    if is_gsm(text):
        return _count([2 if sign in EXTENSION else 1 for sign in text], GSM_SINGLE, GSM_PART)
    widths = [2 if ord(sign) > 0xFFFF else 1 for sign in text]
    return _count([1] * sum(widths) if cuts_pairs else widths, UCS2_SINGLE, UCS2_PART)


def _count(widths: list[int], single: int, part: int) -> int:
    if sum(widths) <= single:
        return min(len(widths), 1)
    count, room = 1, part
    for width in widths:
        if width > room:  # an escape is never parted from its sign
            count, room = count + 1, part
        room -= width
    return count
