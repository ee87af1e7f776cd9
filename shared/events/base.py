"""What all payloads share, and the field types that they are made of.

Rules of the wire (a payload that breaks one is dead-lettered, its neighbours are applied):

- unknown fields are ignored, so that producers may run ahead of readers;
- times are RFC 3339 with an offset, and are UTC once read; a time without offset, or a number, is refused;
- money is a JSON string of plain digits ("129.00") in the order's currency, never a float;
- integers and booleans are not coerced: "3", 3.0 and "yes" are refused;
- text and lists are bounded, ids hold no control characters and are not blank.

Fields that identify or describe a person are kept out of `repr`, which logs may show.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

MAX_LINES: Final = 500
"""Most lines of one order; a list that is longer is refused before its items are kept."""

MAX_ID: Final = 128
"""Longest id of an order, SKU, parcel, store or line, in characters."""

_ID_PATTERN: Final = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
_DATE_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:"
_MONEY_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,4})?$"


class _Money:
    """Core schema of `Money`: from JSON only a string of digits, from Python a `Decimal` too."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.decimal_schema(ge=Decimal(0), allow_inf_nan=False, max_digits=16, decimal_places=4)
        text = core_schema.str_schema(pattern=_MONEY_PATTERN, strict=True)
        from_text = core_schema.no_info_after_validator_function(Decimal, text)
        from_decimal = core_schema.chain_schema([core_schema.is_instance_schema(Decimal), number])
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema([from_decimal, from_text]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                _plain_digits, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": _MONEY_PATTERN, "examples": ["129.00"]}


class _UtcTime:
    """Core schema of `UtcTime`: from JSON only RFC 3339 text (a string of digits is no time), from Python a
    `datetime`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=_DATE_PATTERN, max_length=40, strict=True)
        instance = core_schema.datetime_schema(tz_constraint="aware", strict=True)
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(parse_time, text),
            python_schema=core_schema.no_info_after_validator_function(to_utc, instance),
            serialization=core_schema.simple_ser_schema("datetime"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time"}


def _plain_digits(value: Decimal) -> str:
    return format(value, "f")


def to_utc(value: datetime) -> datetime:
    """The same moment in UTC. Raises `ValueError` for a time without offset and for one outside of the
    calendar."""
    zone = value.tzinfo
    if zone is UTC:
        return value
    if zone is None:
        raise ValueError("The time has no offset")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("The time is outside of the calendar") from None


def parse_time(text: str) -> datetime:
    """RFC 3339 to an aware UTC time; digits beyond microseconds are cut off. Raises `ValueError`, without the
    text."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        try:
            value = datetime.fromisoformat(text.upper())
        except ValueError:
            raise ValueError("The time is not RFC 3339") from None
    return to_utc(value)


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC, ending in Z. Raises `ValueError` as `to_utc`."""
    return to_utc(value).isoformat()[:-6] + "Z"


Id = Annotated[str, Field(min_length=1, max_length=MAX_ID, pattern=_ID_PATTERN)]
"""An id as its owner wrote it: not trimmed, not blank, no control characters (ids are joined by \\x1f)."""

Word = Annotated[str, Field(min_length=1, max_length=64)]
"""One term of a vocabulary that others own: a cause, a kind, a tag, a carrier's code."""

Text = Annotated[str, Field(max_length=500)]
"""A name or a short text; may be empty."""

LongText = Annotated[str, Field(max_length=4000)]
"""A description or an explanation; may be empty."""

Url = Annotated[str, Field(min_length=1, max_length=2048)]
"""An address as the producer sent it. Not checked: whoever fetches or shows it has to."""

UtcTime = Annotated[datetime, _UtcTime]
"""A moment: read from RFC 3339 with any offset, always aware and in UTC once read."""

Money = Annotated[Decimal, _Money]
"""An amount, zero or more, in the order's currency and its major unit, with at most four decimals."""

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
"""An ISO 4217 code."""

Quantity = Annotated[int, Strict(), Field(gt=0, le=1_000_000)]
"""A number of pieces, at least one."""

Flag = Annotated[bool, Strict()]

LineIds = Annotated[tuple[Id, ...], Field(max_length=MAX_LINES)]
"""Lines of an order by their `line_id`, or by SKU where the order's lines have no ids."""

Photos = Annotated[tuple[Url, ...], Field(max_length=20)]

Tags = Annotated[tuple[Word, ...], Field(max_length=50)]


class Part(BaseModel):
    """A value inside a payload. Immutable and hashable; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=False)


class Payload(Part):
    """The data of one event.

    A class with its own `TYPE` is an event of that name on the wire; it goes to `TOPIC`, keyed by the first
    of the fields in `KEY` that is set. Classes without `TYPE` are bases.
    """

    TYPE: ClassVar[str] = ""
    TOPIC: ClassVar[str] = ""
    KEY: ClassVar[tuple[str, ...]] = ("order_id",)
    LASTING: ClassVar[bool] = False
    """A setting that holds until it is replaced: never too old."""

    @property
    def key(self) -> str:
        """The text of the record's key. Raises `ValueError` where no field of `KEY` is set."""
        for field in self.KEY:
            value = getattr(self, field)
            if value is not None:
                return str(value)
        raise ValueError(f"{self.TYPE} needs one of: {', '.join(self.KEY)}")
