"""Assisted: a person sends it. The text waits in the console with a copy button, and is ticked when it was sent.

Works from the first day and for every marketplace chat, Wangwang too. Nothing leaves this process.
"""

from services.dispatcher.channels.port import Features, Message, Outcome, ReplyRoute, Sent, unsendable
from shared.events.deliveries import Channel as Kind

FEATURES = Features(
    kinds=(Kind.DM, Kind.CHAT),
    address=None,
    pictures=True,
    receipts=False,
    inbound=False,
    reply_route=ReplyRoute.NONE,
    longest=4000,
    by_person=True,
    quiet=True,
)


class Assisted:
    name = "assisted"
    features = FEATURES

    async def send(self, message: Message) -> Outcome:
        """Always taken over; it is not sent before a person says so."""
        return unsendable(message, self.features.longest) or Sent(waits_for_person=True)

    async def health(self) -> str:
        return ""

    async def close(self) -> None:
        return None
