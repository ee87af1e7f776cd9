"""How a customer and an order are named in a message. What a customer or a shop wrote is cleaned here and is never more
than a value of a template."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Final

from services.composer.rules.catalogue import Names
from shared.events.incidents import OrderFacts
from shared.events.orders import Line

SHORT_NAME: Final = 12
"""Most characters of a product's name in an SMS."""
LONG_NAME: Final = 60
TAIL: Final = 4

FORBIDDEN: Final = "¥★※①②③④⑤⑥⑦⑧⑨→•【】"
"""Signs that SMS providers refuse in a body (Aliyun and Tencent: SMS template rules)."""

_TITLE_NOISE: Final = re.compile(r"【[^】]*】|\[[^\]]*\]")
_LINK: Final = re.compile(r"(?i)https?:|www\.|\b[a-z0-9-]+\.(?:com|cn|net|org|cc|top|io|me)\b")
_MOBILE: Final = re.compile(r"(?<!\d)(?:\+?86[- ]?)?1[3-9]\d(?:[- ]?\d){8}(?!\d)")
_MASKED: Final = re.compile(r"[*＊•●×]|^x{3,}|x{3,}$")


def has_link(text: str) -> bool:
    return _LINK.search(text) is not None


def has_mobile(text: str) -> bool:
    """Whether a mobile number of China stands in it."""
    return _MOBILE.search(text) is not None


def plain(text: str) -> str:
    """On one line, without control and format characters (a nickname may turn the reading direction), without signs
    that providers refuse."""
    kept = (" " if c.isspace() else c for c in text)
    return " ".join("".join(c for c in kept if c not in FORBIDDEN and unicodedata.category(c)[0] != "C").split())


def spoken_name(nickname: str, names: Names) -> str | None:
    """The nickname as a greeting may say it. None where it is masked, made by a machine, too long, abusive, a number or
    a link: then the greeting names nobody (亲)."""
    name = plain(nickname)
    if not 0 < len(name) <= names.longest or not any(c.isalpha() for c in name):
        return None
    if _MASKED.search(nickname) or has_link(name) or re.search(r"\d{5}", name):
        return None
    low = name.lower()
    if any(re.fullmatch(pattern, low) for pattern in names.generated):
        return None
    squeezed = re.sub(r"[\W_]", "", low)
    return None if any(word in squeezed for word in names.abusive) else name


def affected_lines(facts: OrderFacts) -> Sequence[Line]:
    """The lines of the order that the trouble hits."""
    hit: Collection[str] = {one.line_id or one.sku for one in facts.affected}
    return [line for line in facts.lines if (line.line_id or line.sku) in hit] or facts.lines


def product(line: Line) -> str:
    """The line's name in full, without a title's noise."""
    return _cut(plain(_TITLE_NOISE.sub("", line.name)) or plain(line.name), LONG_NAME)


def short_product(line: Line) -> str:
    """At most `SHORT_NAME` characters: the shop's own short name, else the beginning of the full one, by whole words
    where it has any."""
    name = plain(_TITLE_NOISE.sub("", line.short_name or "")) or product(line)
    if len(name) <= SHORT_NAME:
        return name
    return name[: SHORT_NAME + 1].rpartition(" ")[0] or name[:SHORT_NAME]


def variant(line: Line) -> str:
    return _cut(plain(line.variant), LONG_NAME)


def tail(order_id: str) -> str:
    """The end of the order's number, by which an SMS names it."""
    return plain(order_id)[-TAIL:]


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
