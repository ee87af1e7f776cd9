"""How a customer can be reached, open as the shop's systems send it and sealed as we pass it on."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from shared.events.base import Part, UtcTime


class RecipientKind(StrEnum):
    """What an address is: a phone number, a marketplace's stand-in for one, or an account in a chat."""

    PHONE = "phone"
    OAID = "oaid"
    CHAT_ID = "chat_id"


Address = Annotated[str, Field(min_length=1, max_length=512)]
Sealed = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[A-Za-z0-9+/_-]+={0,2}$")]
Lookup = Annotated[str, Field(min_length=16, max_length=128, pattern=r"^[0-9a-f]+$")]


class Contact(Part):
    """A recipient that may travel on our own topics: never readable, yet recognisable.

    `sealed` is base64 ciphertext that only the dispatcher opens; `lookup` is a keyed hash in lower-case hex,
    equal for equal addresses. From `expires_at` on (virtual numbers run out) the contact must not be used.
    """

    kind: RecipientKind
    sealed: Sealed
    lookup: Lookup
    expires_at: UtcTime | None = None


class Recipient(Part):
    """A recipient in an order event: readable (`value`, as others publish it) or sealed, as our own REST and
    imports append it. Exactly one of the two. The value is kept as sent: `15500001234-5678` is a phone with
    an extension."""

    kind: RecipientKind
    value: Address | None = Field(default=None, repr=False)
    sealed: Sealed | None = None
    lookup: Lookup | None = None
    expires_at: UtcTime | None = None

    def model_post_init(self, context: Any, /) -> None:
        if self.value is None:
            if self.sealed is None or self.lookup is None:
                raise ValueError("a recipient needs a value, or sealed and lookup")
        elif self.sealed is not None or self.lookup is not None:
            raise ValueError("a recipient has a value or is sealed, not both")

    @property
    def contact(self) -> Contact | None:
        """The sealed form, or None while the value is readable and has yet to be sealed."""
        if self.sealed is None or self.lookup is None:
            return None
        return Contact(kind=self.kind, sealed=self.sealed, lookup=self.lookup, expires_at=self.expires_at)
