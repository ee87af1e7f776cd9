"""What customers answer."""

from typing import Annotated, ClassVar

from pydantic import Field

from shared.events import topics
from shared.events.base import Id, LongText, Payload, Text, UtcTime


class ReplyReceived(Payload):
    """A customer's answer. `text` has its phone-like numbers masked before it is written anywhere (see
    `shared.personal`). Without `order_id` nobody knows what it is about: a person looks at it. `incident_ids` are those
    that it may be about, the most likely first."""

    TYPE: ClassVar[str] = "reply.received.v1"
    TOPIC: ClassVar[str] = topics.REPLIES
    KEY: ClassVar[tuple[str, ...]] = ("order_id", "reply_id")

    reply_id: Id
    order_id: Id | None = None
    store_id: Id | None = None
    incident_ids: Annotated[tuple[Id, ...], Field(max_length=20)] = ()
    notice_id: Id | None = None
    channel: Text
    provider: Text | None = None
    text: LongText = Field(repr=False)
    received_at: UtcTime
    by: Text | None = None
    """The agent who typed it in, where one did."""
