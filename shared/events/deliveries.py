"""What the dispatcher tells: what became of each notice. It alone decides whether, when and how one goes out."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, Strict

from shared.events import topics
from shared.events.base import Flag, Id, LongText, Payload, Text, UtcTime
from shared.events.incidents import Scenario
from shared.events.notices import Purpose


class Channel(StrEnum):
    """The kinds of channel that texts are written for."""

    SMS = "sms"
    DM = "dm"
    CHAT = "chat"
    PHONE = "phone"


class Reason(StrEnum):
    """Why a notice was held, suppressed or did not reach."""

    # held, for a person
    MUST_BROKEN = "must_broken"
    APPROVAL = "approval"
    RAMP = "ramp"
    NEW_STORE = "new_store"
    WAVE = "wave"
    FEED_STALE = "feed_stale"
    LATE_START = "late_start"
    MESSAGE_CAP = "message_cap"
    MONEY_CAP = "money_cap"
    STOPPED = "stopped"
    ASKED_FIRST = "asked_first"
    NO_CHANNEL = "no_channel"
    STALE_VIEW = "stale_view"
    ASSISTED = "assisted"
    """A person has to send it by hand, and tick it."""
    # suppressed, for good
    MODE_OFF = "mode_off"
    SHADOW = "shadow"
    RESOLVED = "resolved"
    SUPERSEDED = "superseded"
    SMALL_MOVE = "small_move"
    NEVER_TOLD = "never_told"
    ALREADY_TOLD = "already_told"
    ANSWERED = "answered"
    OPTED_OUT = "opted_out"
    NOT_A_TEST_RECIPIENT = "not_a_test_recipient"
    REJECTED = "rejected"
    # failed
    BAD_ADDRESS = "bad_address"
    COUNTRY = "country"
    REFUSED = "refused"
    PROVIDER_DOWN = "provider_down"
    UNDELIVERED = "undelivered"
    # unknown
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"


class Delivery(Payload):
    """One step in a notice's life. `channel`, `provider`, `step` and `attempt` say which try it was, where it was one.
    An address is never told, only the `lookup` of the contact."""

    TOPIC: ClassVar[str] = topics.DELIVERIES

    notice_id: Id
    incident_id: Id
    revision: Annotated[int, Strict(), Field(ge=1)] = 1
    store_id: Id
    order_id: Id
    scenario: Scenario
    purpose: Purpose
    at: UtcTime
    reason: Reason | None = None
    detail: LongText = ""
    """The reason in words, for people."""
    channel: Channel | None = None
    provider: Text | None = None
    step: Annotated[int, Strict(), Field(ge=0)] | None = None
    attempt: Annotated[int, Strict(), Field(ge=1)] | None = None
    by: Text | None = None
    """The person who released, rejected or sent it, by the name of their key."""


class NoticeHeld(Delivery):
    """It waits for a person. `releasable` false: a must is broken, only a person's own words can help."""

    TYPE: ClassVar[str] = "notice.held.v1"

    releasable: Flag = True


class NoticeReleased(Delivery):
    TYPE: ClassVar[str] = "notice.released.v1"


class NoticeSent(Delivery):
    """A provider (or a person) took it over. Not yet delivered."""

    TYPE: ClassVar[str] = "notice.sent.v1"

    told_date: UtcTime | None = None


class NoticeDelivered(Delivery):
    TYPE: ClassVar[str] = "notice.delivered.v1"


class NoticeFailed(Delivery):
    """This step of the plan did not reach the customer. `final`: no channel is left, nobody was told by this notice."""

    TYPE: ClassVar[str] = "notice.failed.v1"

    final: Flag = False


class NoticeUnknown(Delivery):
    """It may or may not have gone out; it is never tried again by itself."""

    TYPE: ClassVar[str] = "notice.unknown.v1"


class NoticeSuppressed(Delivery):
    """It will not go out, for good; the money reserved for it is free again."""

    TYPE: ClassVar[str] = "notice.suppressed.v1"


class CallRequested(Delivery):
    """An important order: an agent calls the customer, too."""

    TYPE: ClassVar[str] = "call.requested.v1"


class WavePaused(Payload):
    """An unusual wave: sending pauses for this store and scenario until a person has looked, once for all of it."""

    TYPE: ClassVar[str] = "wave.paused.v1"
    TOPIC: ClassVar[str] = topics.DELIVERIES
    KEY: ClassVar[tuple[str, ...]] = ("wave_id",)

    wave_id: Id
    store_id: Id
    scenario: Scenario
    at: UtcTime
    incidents: Annotated[int, Strict(), Field(ge=0)]
    open_orders: Annotated[int, Strict(), Field(ge=0)]


class ContactOptedOut(Payload):
    """The customer wants no more messages from this store at this address."""

    TYPE: ClassVar[str] = "contact.opted_out.v1"
    TOPIC: ClassVar[str] = topics.DELIVERIES

    order_id: Id
    store_id: Id
    lookup: Annotated[str, Field(pattern=r"^[0-9a-f]{16,128}$")]
    channel: Channel
    at: UtcTime
