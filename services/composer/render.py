"""Texts from templates: Liquid for the words, CLDR for dates and amounts. Pure: no files, no clock, no network.

What a customer or a shop wrote is only ever a value: it is put out as it is and never parsed. Templates cannot run
code, reach files or loop for ever.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_datetime
from babel.numbers import format_decimal, get_currency_precision
from liquid import BoundTemplate, Environment, StrictUndefined
from liquid.exceptions import LiquidError

from services.composer.rules.catalogue import Language
from services.composer.rules.write import Unrenderable

MOST_LOOPS: Final = 1000
LONGEST_OUTPUT: Final = 16_000
MOST_TEMPLATES: Final = 2000


class _Limited(Environment):
    """Limits for what a template may do: rounds of loops, bytes put out, bytes of variables, nesting."""

    context_depth_limit = 10
    loop_iteration_limit = MOST_LOOPS
    local_namespace_limit = 10_000
    output_stream_limit = LONGEST_OUTPUT


class Renderer:
    """A `Words` for the rules. Templates are parsed once and kept."""

    def __init__(self, languages: Mapping[str, Language]) -> None:
        self._languages = languages
        self._environment = _Limited(undefined=StrictUndefined, autoescape=False)
        self._parsed: dict[str, BoundTemplate] = {}

    def fill(self, template: str, facts: Mapping[str, Any]) -> str:
        """The template with these facts in it. Raises `Unrenderable` for a template that is broken, names what is not
        there, or goes beyond a limit; the reason repeats no value."""
        if "{" not in template:
            return template
        try:
            parsed = self._parsed.get(template)
            if parsed is None:
                if len(self._parsed) >= MOST_TEMPLATES:
                    self._parsed.clear()
                parsed = self._parsed[template] = self._environment.from_string(template)
            return parsed.render(**facts)
        except LiquidError as error:
            raise Unrenderable(f"a template does not render ({type(error).__name__})") from None

    def day(self, moment: datetime, zone: ZoneInfo, language: str) -> str:
        """The calendar date in this zone, such as 12月16日."""
        day = moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        return _written(self._languages[language].day, day, language)

    def moment(self, moment: datetime, zone: ZoneInfo, language: str) -> str:
        """Date and time of day in this zone."""
        minute = moment.astimezone(zone).replace(second=0, microsecond=0)
        return _written(self._languages[language].moment, minute, language)

    def money(self, amount: Decimal, currency: str, language: str) -> str:
        """The amount with its currency: 10元; decimals only where there are any."""
        places = 0 if amount == amount.to_integral_value() else get_currency_precision(currency)
        digits = _digits(amount, places, language)
        ways = self._languages[language].currencies
        return self.fill(ways.get(currency, ways["other"]), {"amount": digits, "currency": currency})


# Babel looks locales up slowly, and a wave of trouble writes the same few dates and amounts again and again.


@lru_cache(maxsize=4096)
def _written(pattern: str, moment: datetime, language: str) -> str:
    return format_datetime(moment, pattern, tzinfo=moment.tzinfo, locale=_locale(language))


@lru_cache(maxsize=4096)
def _digits(amount: Decimal, places: int, language: str) -> str:
    return format_decimal(amount, f"#,##0.{'0' * places}" if places else "#,##0", locale=_locale(language))


@lru_cache(maxsize=64)
def _locale(language: str) -> Locale:
    return Locale.parse(language, sep="-")
