"""Who may call what over REST: bearer keys with a role, and the stores that they are for.

The installation's first key (`HEADSUP_API_KEY`, or made at the first start) is an admin's. Further keys are settings
(`api_key.set.v1`), which each service projects for itself; a key is known by its SHA-256 only.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.events.stores import KeySet, Role
from shared.problems import Problem

ALLOWED: Final[Mapping[Role, frozenset[Role]]] = {
    Role.INGEST: frozenset({Role.INGEST, Role.ADMIN}),
    Role.READ: frozenset({Role.READ, Role.OPERATOR, Role.ADMIN}),
    Role.OPERATOR: frozenset({Role.OPERATOR, Role.ADMIN}),
    Role.ADMIN: frozenset({Role.ADMIN}),
}
"""For what a route needs: the roles that have it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, by the name of the key; `stores` None means all."""

    name: str
    role: Role
    stores: frozenset[str] | None = None

    def sees(self, store_id: str) -> bool:
        return self.stores is None or store_id in self.stores

    def must_see(self, store_id: str) -> None:
        """Raises `Problem` 403 for a store that the key is not for."""
        if not self.sees(store_id):
            raise Problem(403, "This API key is not for that store.")

    def must_see_all(self) -> None:
        """Raises `Problem` 403 for a key that is for some stores only: what it asks for concerns all of them."""
        if self.stores is not None:
            raise Problem(403, "This concerns all stores, and this API key is for some only.")


Check = Callable[..., Awaitable[Caller]]


class Keys(Protocol):
    async def __call__(self, sha256: str) -> KeySet | None:
        """The key with this hash, unless it was revoked. Raises `Retry` while it cannot be known."""
        ...


async def no_keys(sha256: str) -> KeySet | None:
    """No further keys."""
    return None


class Access:
    """Lets in who gives the first key (`first` is its hash; empty: nobody has it) or one that `keys` knows."""

    def __init__(self, first: str, keys: Keys = no_keys) -> None:
        self._first = first
        self._keys = keys
        self._bearer = HTTPBearer(auto_error=False)

    def needs(self, role: Role) -> Check:
        """A dependency: the caller, who has this role. 401 for an unknown key, 403 for another role's."""

        async def check(
            given: Annotated[HTTPAuthorizationCredentials | None, Depends(self._bearer)] = None,
        ) -> Caller:
            caller = await self._caller(given.credentials if given else "")
            if caller.role not in ALLOWED[role]:
                raise Problem(403, f"This API key has the role {caller.role}; {role} is needed here.")
            return caller

        return check

    async def _caller(self, key: str) -> Caller:
        if not key:
            raise Problem(401, "Give the API key as `Authorization: Bearer …`.")
        hashed = key_hash(key)
        if self._first and hmac.compare_digest(hashed, self._first):
            return Caller("first key", Role.ADMIN)
        known = await self._keys(hashed)
        if known is None:
            nobody = "" if self._first else " No first key has been set on this server: set HEADSUP_API_KEY."
            raise Problem(401, f"This API key is not known.{nobody}")
        return Caller(known.name, known.role, None if known.stores is None else frozenset(known.stores))


def key_hash(key: str) -> str:
    """SHA-256 in hexadecimal: all that is kept of an API key (keys are random and long, so no salt is needed)."""
    return hashlib.sha256(key.encode()).hexdigest()
