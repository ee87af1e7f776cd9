"""What people set: stores with their modes and caps, stops, releases of waves, API keys.

All of it travels on one compacted topic, which every service projects for itself (`shared.store.stores`). Each kind has
keys of its own, or compaction would drop a stop for a store's newer settings. None of it is ever too old.
"""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final
from zoneinfo import ZoneInfo

from pydantic import Field, SerializerFunctionWrapHandler, Strict, field_validator, model_serializer

from shared.events import topics
from shared.events.base import Flag, Id, Money, Part, Payload, Text, UtcTime, Word
from shared.events.contacts import Lookup
from shared.events.incidents import Scenario

ANY: Final = "*"
"""Stands for every store, scenario or channel in a stop."""


class Mode(StrEnum):
    """How far a store's scenario is switched on.

    off: nothing is written. shadow: everything is worked out and nothing is sent. approve: a person releases each
    notice. ramp: the first 20 of a template version are released by a person, then 5, 25 and 100 % go by themselves.
    live: all go by themselves."""

    OFF = "off"
    SHADOW = "shadow"
    APPROVE = "approve"
    RAMP = "ramp"
    LIVE = "live"


class NewStores(StrEnum):
    """What holds for a store that nobody has set up: `hold` (all waits for a person) or `live`."""

    HOLD = "hold"
    LIVE = "live"


class Explicit(Part):
    """A part whose None says something else than its default: it is written out, though absent values are left out of
    what travels."""

    @model_serializer(mode="wrap")
    def _write_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = handler(self)
        fields = type(self).model_fields.items()
        return told | {n: None for n, field in fields if field.default is not None and getattr(self, n) is None}


class QuietHours(Part):
    """No SMS between these times of the store's day; over midnight where `end` is before `start`."""

    start: time = time(22, 0)
    end: time = time(8, 0)


class Caps(Explicit):
    """Most per day of the store's calendar. None: no cap. For the first three days after `live_from` a store sends 500
    messages at most, whatever is set here, unless `first_days` says otherwise."""

    messages: Annotated[int, Strict(), Field(ge=0)] | None = None
    money: Money | None = None
    first_days: Annotated[int, Strict(), Field(ge=0)] | None = 500


class Important(Part):
    """Which orders also get a call: from this total on, or with one of these tags; at most so many a day."""

    total: Money = Decimal(1000)
    tags: Annotated[tuple[Word, ...], Field(max_length=20)] = ("vip",)
    calls_a_day: Annotated[int, Strict(), Field(ge=0)] = 50


class Feeds(Part):
    """After how many minutes of silence a feed counts as dead. None: never."""

    orders_minutes: Annotated[int, Strict(), Field(ge=1)] | None = None
    tracking_minutes: Annotated[int, Strict(), Field(ge=1)] | None = None


class Wave(Part):
    """When a wave of trouble pauses sending: within an hour at least `incidents`, and more than `share` of the store's
    open orders."""

    incidents: Annotated[int, Strict(), Field(ge=1)] = 200
    share: Annotated[float, Field(gt=0, le=1)] = 0.03


class Setting(Payload):
    """Something that a person set: `by` whom, told as a name or the name of an API key. Its event's time says when."""

    TOPIC: ClassVar[str] = topics.SETTINGS
    LASTING: ClassVar[bool] = True

    by: Text = ""


class StoreConfigured(Setting, Explicit):
    """A store as it is set up now; it replaces all that was set before. Times of day are in `time_zone`."""

    TYPE: ClassVar[str] = "store.configured.v1"
    KEY: ClassVar[tuple[str, ...]] = ("store_id",)

    store_id: Id
    name: Text = ""
    """How the store signs: 【name】 in an SMS. Empty: the store's id."""
    language: Annotated[str, Field(min_length=2, max_length=35)] = "zh-CN"
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Asia/Shanghai"
    quiet_hours: QuietHours | None = QuietHours()
    modes: dict[Scenario, Mode] = Field(default_factory=dict)
    """A scenario that is not named is off."""
    live_from: UtcTime | None = None
    """What occurred before this waits for a person. The first days, with their cap, are counted from here."""
    test_recipients: Annotated[tuple[Lookup, ...], Field(max_length=100)] | None = None
    """Where set, nobody else is written to. Look-up values, never numbers in the clear."""
    countries: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Z]{2}$")], ...], Field(max_length=50)] = ("CN",)
    caps: Caps = Caps()
    important: Important = Important()
    feeds: Feeds = Feeds()
    wave: Wave = Wave()
    marketplace: Flag = True
    """No choice page and no link in any message."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError("There is no such time zone; write one such as Asia/Shanghai") from None
        return name


class SendingStopped(Setting):
    """Nothing unclaimed goes out for this store, scenario and channel (each may be `*`) while `stopped`."""

    TYPE: ClassVar[str] = "sending.stopped.v1"
    KEY: ClassVar[tuple[str, ...]] = ("store_id", "scenario", "channel")

    store_id: Id = ANY
    scenario: Annotated[str, Field(min_length=1, max_length=64)] = ANY
    channel: Annotated[str, Field(min_length=1, max_length=64)] = ANY
    stopped: Flag = True
    reason: Text = ""

    @property
    def key(self) -> str:
        return f"stop/{self.store_id}/{self.scenario}/{self.channel}"


class WaveReleased(Setting):
    """A person looked at a wave: it goes on, or (`sends` false) its notices are dropped."""

    TYPE: ClassVar[str] = "wave.released.v1"
    KEY: ClassVar[tuple[str, ...]] = ("wave_id",)

    store_id: Id
    wave_id: Id
    sends: Flag = True

    @property
    def key(self) -> str:
        return f"wave/{self.wave_id}"


class Role(StrEnum):
    """What a key may do. ingest: send events. read: look. operator: look, and act on notices, tasks and stops.
    admin: everything."""

    INGEST = "ingest"
    READ = "read"
    OPERATOR = "operator"
    ADMIN = "admin"


class KeySet(Setting):
    """An API key by its SHA-256; the key itself is kept nowhere. `stores` None: all."""

    TYPE: ClassVar[str] = "api_key.set.v1"
    KEY: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, Field(min_length=1, max_length=64)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    role: Role
    stores: Annotated[tuple[Id, ...], Field(max_length=1000)] | None = None
    revoked: Flag = False

    @property
    def key(self) -> str:
        return f"key/{self.name}"


def mode_of(store: StoreConfigured | None, scenario: Scenario, new_stores: NewStores) -> Mode:
    """The mode that holds: the store's own word, else what holds for new stores (held ones are as in approve)."""
    if store is not None:
        return store.modes.get(scenario, Mode.OFF)
    return Mode.LIVE if new_stores is NewStores.LIVE else Mode.APPROVE


def default_store(store_id: str, **changes: Any) -> StoreConfigured:
    """A store as it is before anybody has set it up."""
    return StoreConfigured(store_id=store_id, **changes)


def quiet_until(store: StoreConfigured, at: datetime) -> datetime | None:
    """The end of the store's quiet hours where `at` is in them; UTC."""
    quiet = store.quiet_hours
    if quiet is None or quiet.start == quiet.end:
        return None
    zone = ZoneInfo(store.time_zone)
    local = at.astimezone(zone)
    over_midnight = quiet.end < quiet.start
    late, early = local.time() >= quiet.start, local.time() < quiet.end
    if not ((late or early) if over_midnight else (late and early)):
        return None
    day = local.date() + timedelta(days=1) if over_midnight and late else local.date()
    return datetime.combine(day, quiet.end, zone).astimezone(UTC)
