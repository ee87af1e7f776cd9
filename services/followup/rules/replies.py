"""What a customer's reply means: a choice, a score, a wish for silence, a courtesy, or something for a person.

A wrong choice costs a customer their order, so a reply chooses only where nothing in it says otherwise: a question, a
condition, anger, a negation, a wish for silence, two options or a number that is no option make it unclear. `read`
never raises.
"""

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from services.followup.rules import words
from shared.events.notices import RemedyKind
from shared.events.replies import besides_opting_out, opts_out

LONGEST: Final = 200
"""Who writes more than this many characters wants to be read by a person."""
BEST: Final = 5


class Meaning(StrEnum):
    CHOICE = "choice"
    SCORE = "score"
    OPT_OUT = "opt_out"
    COURTESY = "courtesy"
    UNCLEAR = "unclear"


class Reading(NamedTuple):
    """`number` is the option or the score, `code` what the option brings. `reason` is in words, and never repeats the
    reply."""

    meaning: Meaning
    number: int | None
    reason: str
    code: RemedyKind | None = None


def read(text: str, options: Mapping[int, RemedyKind], *, scoring: bool = False, settled: bool = False) -> Reading:
    """What `text` means while these options are open. `scoring`: the satisfaction question is the open one. `settled`:
    a choice was made already, so that a mere courtesy needs nobody."""
    stars = _stars(text)
    said = plain(text)
    if scoring and (found := stars or _score(said)):
        return Reading(Meaning.SCORE, found, f"{found} of {BEST}")
    bare = re.sub(r"[\s,.!;:~'\"()\[\]<>*_+=/-]+", "", said)
    if not bare:
        return Reading(Meaning.UNCLEAR, None, "it holds no words")
    if opts_out(text):
        if not _for_a_person(said) and words.BESIDES.fullmatch(besides_opting_out(text)):
            return Reading(Meaning.OPT_OUT, None, "it asks for no more messages")
        return Reading(Meaning.UNCLEAR, None, "it asks for no more messages, and says something else")
    if why := _for_a_person(said):
        return Reading(Meaning.UNCLEAR, None, why)
    reading = _choice(said, options)
    if reading.meaning is Meaning.UNCLEAR and settled and words.COURTESY.fullmatch(bare):
        return Reading(Meaning.COURTESY, None, "a courtesy after the choice")
    return reading


def plain(text: str) -> str:
    """Lower case, half width, simplified, one kind of comma; emoji and other signs become spaces. ①, １ and ⑴ are 1."""
    text = "".join(_sign(c) for c in text)
    text = unicodedata.normalize("NFKC", text).lower().translate(words.SIMPLIFIED)
    text = text.translate(str.maketrans("，。！？；：、’‘“”～#「」【】|·", ',.!?;:,\'\'""~ ""[],.'))
    return re.sub(r"[ \t\r\f\v\u3000]+", " ", text).strip()


def _sign(character: str) -> str:
    dingbat = ord(character) - 0x2776
    if 0 <= dingbat < 30:  # ❶ ➀ ➊, in tens
        return str(dingbat % 10 + 1)
    if character in "\ufe0f\u20e3\u200b\u200c\u200d\ufeff":
        return ""
    if character == "\n":
        return ","
    return (
        " "
        if unicodedata.category(character) in {"So", "Sk", "Cc", "Cf", "Co", "Cs", "Cn"}
        and not (unicodedata.normalize("NFKC", character).strip("()").isalnum())
        else character
    )


def _stars(text: str) -> int:
    """How many stars a text of nothing but stars has, where that can be a score; else 0."""
    bare = re.sub(r"[\s\ufe0f]", "", text)
    count = len(bare)
    return count if count <= BEST and bare and not bare.strip("⭐★🌟*☆") and "☆" not in bare else 0


_SCORE: Final = re.compile(
    rf"(?:打|给|评|我|好评|评分|score|rating|it'?s|i(?:'d)? (?:give|say)(?: it)?|[:\s])*(?P<value>{words.NUMBER})\s*"
    r"(?P<unit>分|颗星|星|stars?|points?|/ ?5|out of 5)?\s*(?P<rest>$|[,.!;~\s(].*)"
)


def _score(said: str) -> int | None:
    found = _SCORE.fullmatch(said)
    if found is None or re.search(words.NUMBER, found["rest"]):
        return None
    rest = found["rest"].strip(" ,.!~")
    if rest and not found["unit"] and words.QUESTION.search(rest):
        return None
    value = _value(found["value"])
    return value if value is not None and 1 <= value <= BEST else None


def _for_a_person(said: str) -> str:
    if len(said) > LONGEST:
        return "it is long: a person should read it"
    if words.ANGER.search(said):
        return "it is angry"
    if words.QUESTION.search(said):
        return "it asks something"
    if words.CONDITION.search(said):
        return "it depends on something, or leaves it open"
    return ""


def _choice(said: str, options: Mapping[int, RemedyKind]) -> Reading:
    named, refused, rest = _named(said)
    numbers, leftover = _numbers(rest)
    if numbers:
        return _by_number(numbers, leftover, named, refused, options)
    if len(named) > 1:
        return Reading(Meaning.UNCLEAR, None, "it names more than one option")
    if not named:
        why = "it refuses an option and names no other" if refused else "it names no option"
        return Reading(Meaning.UNCLEAR, None, why)
    [code] = named
    if code in refused:
        return Reading(Meaning.UNCLEAR, None, "it both wants and refuses the same")
    fitting = [number for number, its in options.items() if its is code]
    if len(fitting) != 1:
        why = "it wishes for something that is not offered" if not fitting else "its words fit more than one option"
        return Reading(Meaning.UNCLEAR, None, why)
    return Reading(Meaning.CHOICE, fitting[0], f"its words choose {code}", code)


def _by_number(
    numbers: set[int | None],
    leftover: str,
    named: set[RemedyKind],
    refused: set[RemedyKind],
    options: Mapping[int, RemedyKind],
) -> Reading:
    if len(numbers) > 1:
        return Reading(Meaning.UNCLEAR, None, "it names more than one number")
    [number] = numbers
    if number is None or number not in options:
        return Reading(Meaning.UNCLEAR, None, "its number is no option")
    if leftover:
        return Reading(Meaning.UNCLEAR, None, "it has a number, and more than that")
    code = options[number]
    if named - {code} or code in refused:
        return Reading(Meaning.UNCLEAR, None, "its number and its words do not agree")
    return Reading(Meaning.CHOICE, number, f"its number chooses {code}", code)


_REFUSED_WAIT: Final = re.compile(words.NOT_NOW)
_CHOICES: Final = {code: re.compile(pattern) for code, pattern in words.CHOICES.items()}
_BEFORE: Final = re.compile(rf"(?:{words.BEFORE}|[\s,.!;:~()\[\]\"-])+")
_AFTER: Final = re.compile(rf"(?:{words.AFTER}|[\s,.!;:~()\[\]\"-])+")
_ORDINAL: Final = re.compile(rf"(?:第\s*(?P<of>{words.NUMBER})\s*(?:个|种|项|条)?|(?P<one>{words.ORDINAL}))")


def _named(said: str) -> tuple[set[RemedyKind], set[RemedyKind], str]:
    """The options that words name, those that they refuse, and the text without these words."""
    named: set[RemedyKind] = set()
    refused: set[RemedyKind] = set()
    if _REFUSED_WAIT.search(said):
        refused.add(RemedyKind.WAIT)
        said = _REFUSED_WAIT.sub(", ", said)
    rest = said
    for code, pattern in _CHOICES.items():
        for found in pattern.finditer(said):
            before = said[: found.start()]
            (refused if words.NOT.search(before) else named).add(code)
        rest = pattern.sub(lambda found: " " * len(found[0]), rest)
    return named, refused, rest


def _numbers(rest: str) -> tuple[set[int | None], str]:
    """The numbers of a text, None for one beyond reading, and what is neither number nor filler. Chinese numerals and
    English number words count only where nothing else is left: they are parts of too many other words."""
    left = re.sub(r"\b(?:no|nr)\.? ?(?=\d)", " ", rest)
    numbers: set[int | None] = set()

    def take(found: re.Match[str]) -> str:
        numbers.add(_value(found["of"] or found["one"].split()[0]))
        return "\x00"

    left = _ORDINAL.sub(take, left)
    parts = re.split(rf"({words.NUMBER}|\x00)", left)
    outside = []
    for index, part in enumerate(parts):
        if index % 2:
            if part != "\x00":
                numbers.add(_value(part))
            continue
        around = _BEFORE.sub("", part)
        outside.append(_AFTER.sub("", around) if index else around)
    leftover = "".join(outside).strip()
    if leftover and not re.search(r"\d", rest):
        return set(), leftover
    return numbers, leftover


def _value(text: str) -> int | None:
    if text.isdecimal():
        return int(text) if len(text) <= 2 else None
    if text in words.NUMERALS:
        return words.NUMERALS[text]
    if len(text) == 2 and text[0] in "十拾":
        return 10 + words.NUMERALS[text[1]]
    return None
