"""Personal data at rest: sealed for keeping, and a keyed look-up value for finding.

`seal` is authenticated encryption (AES-256-GCM) with a random nonce, so the same phone looks different each time.
`lookup` is a keyed hash (HMAC-SHA-256), the same each time, so that a phone can be found but not guessed without the
secret. Both keys are derived from one installation secret (HKDF-SHA-256), which never goes near the database.
"""

import base64
import binascii
import hmac
import os
import secrets
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.events.contacts import Recipient
from shared.events.orders import OrderPaid

_VERSION = b"\x01"
_NONCE_BYTES = 12
_SECRET_BYTES = 32

_encode = msgspec.json.Encoder().encode


class Sealer:
    """Seals and opens with one installation secret of 32 bytes (ValueError for any other length)."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _SECRET_BYTES:
            raise ValueError("the secret is 32 bytes, given as base64: head -c 32 /dev/urandom | base64")
        self._aead = AESGCM(_derive(secret, b"headsup seal"))
        self._lookup_key = _derive(secret, b"headsup lookup")

    @classmethod
    def from_base64(cls, secret: str) -> "Sealer":
        try:
            return cls(base64.b64decode(secret, validate=True))
        except binascii.Error as error:
            raise ValueError("the secret is not base64: head -c 32 /dev/urandom | base64") from error

    @classmethod
    def from_file(cls, path: Path) -> "Sealer":
        """The secret kept in `path` (mode 600); made there when absent."""
        if not path.exists():
            draft = path.with_name(path.name + f".{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_bytes(base64.b64encode(secrets.token_bytes(_SECRET_BYTES)))
            draft.rename(path)
        return cls.from_base64(path.read_text().strip())

    def seal(self, clear: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._aead.encrypt(nonce, clear, _VERSION)

    def open(self, sealed: bytes) -> bytes:
        """The clear text. Raises ValueError where it was sealed with another secret or was changed."""
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, body, sealed[:1])
        except (InvalidTag, ValueError) as error:
            raise ValueError("this was sealed with another secret, or was changed since") from error

    def sealed(self, paid: OrderPaid) -> OrderPaid:
        """The order without readable addresses; those that were sealed before stay as they are."""
        recipients = tuple(self._recipient(r) for r in paid.customer.recipients)
        customer = paid.customer.model_copy(update={"recipients": recipients, "phone": None})
        return paid.model_copy(update={"customer": customer})

    def sealed_json(self, paid: OrderPaid) -> bytes:
        """The body of `sealed(paid)` as it is kept. Without the models in between, which cost as much again."""
        document = paid.__pydantic_serializer__.to_python(paid, mode="json", exclude_none=True)
        for recipient in document["customer"]["recipients"]:
            value = recipient.pop("value", None)
            if value is not None:
                recipient.update(self._hidden(recipient["kind"], value))
        return _encode(document)

    def _recipient(self, recipient: Recipient) -> Recipient:
        if recipient.value is None:
            return recipient
        return Recipient(
            kind=recipient.kind,
            expires_at=recipient.expires_at,
            **self._hidden(recipient.kind, recipient.value),
        )

    def _hidden(self, kind: str, value: str) -> dict[str, str]:
        return {
            "sealed": base64.b64encode(self.seal(value.encode())).decode(),
            "lookup": self.lookup(kind, value),
        }

    def lookup(self, kind: str, value: str) -> str:
        """The look-up value of one recipient (64 hexadecimal digits), the same for the same kind and value."""
        return hmac.digest(self._lookup_key, f"{kind}\x1f{value}".encode(), "sha256").hex()


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), _SECRET_BYTES, salt=None, info=purpose).derive(secret)
