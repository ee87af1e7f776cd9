"""What customers answer."""

import re
import unicodedata
from typing import Annotated, ClassVar, Final

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


_WHOLE: Final = re.compile(
    r"(回复?)?(r|t|td|tdtd|n)|(please)?(stop|stopall|optout|cancelsubscription)|(回复?t?)?(退订|拒收)(谢谢|了|吧)?"
)
_WITHIN: Final = re.compile(
    r"退订|取消订阅|拒收|拒绝接收|unsubscribe|optout"
    r"|(不要|别|勿|不想|不用|停止)(再|再给我|给我|再收到|收到|接收)*(发|发送|推送|收)?(任何|这种|这些|这类)?(短信|消息|信息|通知|推送)"
    r"|(nomore|stop(sending)?(me)?)(these|any)?(texts?|sms|messages?)"
)


def opts_out(text: str) -> bool:
    """Whether a message asks for no more messages: as a word by itself (退订, TD, STOP) or within a sentence. One place
    for all services: who enters it and who reads the reply must agree."""
    plain = _plain(text)
    return bool(_WHOLE.fullmatch(plain) or _WITHIN.search(plain))


def besides_opting_out(text: str) -> str:
    """What a message that opts out says besides, in lower case and without spaces and signs; empty where nothing."""
    plain = _plain(text)
    return "" if _WHOLE.fullmatch(plain) else _WITHIN.sub("", plain)


def _plain(text: str) -> str:
    return re.sub(r"[\s\W_]+", "", unicodedata.normalize("NFKC", text)).casefold()
