"""The one way out over HTTP: to gateways, bridges and whatever else an installation names by its address.

Guarantees:

- A request goes out at most once. There are no second tries, redirects, cookies or proxies from the environment.
- What went wrong is told by *when*: `Lost.left` false says that not one byte of the request was written.
- It ends within its time, however slowly the other side talks, and reads at most `LONGEST_ANSWER` bytes.
- An address that is not on the allow-list is called by https only, on a port of `PORTS`, and only if every address
  that its name has is a public one. It is resolved once, and what was checked is what is connected to.
- No address, header or body is in any log, error or `repr`.

httpx stays behind this module, and of it only the transport is used: its client would log every URL with its query.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from shared.clock import SystemClock

PORTS: Final = frozenset({443, 8443})
LONGEST_ANSWER: Final = 64 * 1024
LONGEST_PAUSE: Final = 3600.0
IDLE_SECONDS: Final = 2.0
"""An idle connection is let go before any usual server does it: a request on a connection that is just being closed
would be lost with nobody knowing how far it got."""
CONNECTIONS: Final = 32

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def pause(self, otherwise: float) -> float:
        """Seconds that the other side asks us to wait (Retry-After), within reason; `otherwise` where it does not."""
        asked = self.headers.get("retry-after", "").strip()
        if asked.isascii() and asked.isdigit():
            return min(float(asked[:9]), LONGEST_PAUSE)
        try:
            until = parsedate_to_datetime(asked)
        except ValueError:
            return otherwise
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        # The other side's machine keeps real time, whatever clock Headsup runs on.
        return min(max((until - SystemClock().now()).total_seconds(), 0.0), LONGEST_PAUSE)


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no answer. `left`: the request may have arrived. `refused`: we do not call this address at all."""

    detail: str
    left: bool
    refused: bool = False


class _Refused(Exception):  # noqa: N818
    """The name leads to where we do not go."""


class _TooLong(Exception):  # noqa: N818
    """The answer does not end where it should."""


class Outbound:
    """A client for one destination. `url` is its address, or the beginning of it.

    `allowed`: hosts, each `name` or `name:port`, that may be anywhere and speak plain http. `seconds` bounds a request
    from the look-up of the name to the end of the answer. Raises ValueError, without repeating the address, for one
    that can never be called."""

    def __init__(
        self,
        url: str,
        *,
        seconds: float,
        allowed: Collection[str] = (),
        tls: ssl.SSLContext | None = None,
        resolve: Resolver | None = None,
    ) -> None:
        self._base = _checked(url)
        self._host = self._base.raw_host.decode().rstrip(".").lower()
        self._port = self._base.port or (443 if self._base.scheme == "https" else 80)
        names = {name.strip().lower() for name in allowed}
        self._anywhere = bool(names & {self._host, f"{self._host}:{self._port}"})
        if not self._anywhere and (self._base.scheme != "https" or self._port not in PORTS):
            raise ValueError(f"it must be https on port {' or '.join(map(str, sorted(PORTS)))}, or on the allow-list")
        self._seconds = seconds
        self._resolve = resolve or _system_resolver
        limits = httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=IDLE_SECONDS)
        self._transport = httpx.AsyncHTTPTransport(verify=tls or _usual_trust(), trust_env=False, limits=limits)
        # httpcore tells the headers of every answer at DEBUG, and an answer may repeat what it was asked.
        logging.getLogger("httpcore").setLevel(logging.INFO)

    async def ask(
        self,
        method: str,
        path: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer | Lost:
        """One request to the destination with `path` behind it, and what came of it. Never raises for anything that
        the network or the other side does."""
        left = _Left()
        target = self._base.raw_path.rstrip(b"/") + path.encode() if path else self._base.raw_path
        request = httpx.Request(
            method,
            self._base,
            headers={"Accept-Encoding": "identity", "User-Agent": "headsup", **(headers or {})},
            content=body,
            extensions={
                "trace": left.trace,
                "sni_hostname": self._host,
                # As it is: httpx would look at every character of a long text twice.
                "target": target + (b"?" + urlencode(query).encode() if query else b""),
            },
        )
        try:
            async with asyncio.timeout(self._seconds):
                return await self._exchange(request, left)
        except _Refused:
            return Lost("The address is not public and not on the allow-list.", left=False, refused=True)
        except _TooLong:
            return Lost(f"The answer is longer than {LONGEST_ANSWER} bytes.", left=True)
        except TimeoutError:
            return Lost("No whole answer in time." if left else "No connection in time.", bool(left))
        except (httpx.TransportError, httpx.InvalidURL, OSError):
            return Lost("The connection broke before the whole answer." if left else "No connection.", bool(left))

    async def close(self) -> None:
        await self._transport.aclose()

    async def _exchange(self, request: httpx.Request, left: "_Left") -> Answer:
        addresses = await self._addresses()
        for address in addresses[:-1]:
            try:
                return await self._at(address, request)
            except httpx.ConnectError:
                if left:
                    raise
        return await self._at(addresses[-1], request)

    async def _at(self, address: str, request: httpx.Request) -> Answer:
        # The request's Host header and the name that its certificate must have stay those of the destination.
        request.url = self._base.copy_with(host=address)
        response = await self._transport.handle_async_request(request)
        try:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > LONGEST_ANSWER:
                    raise _TooLong
        finally:
            await response.aclose()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        return Answer(response.status_code, headers, bytes(body))

    async def _addresses(self) -> Sequence[str]:
        try:
            found = await self._resolve(self._host, self._port)
        except UnicodeError:  # a name that no resolver takes
            found = ()
        if not found:
            raise OSError
        # One private address among public ones is no accident: it is how a name is made to lead inside.
        if not self._anywhere and not all(map(is_public, found)):
            raise _Refused
        return found


class _Left:
    """True once the first byte of a request has been handed to the network."""

    def __init__(self) -> None:
        self._writing = False

    def __bool__(self) -> bool:
        return self._writing

    async def trace(self, event: str, _: Mapping[str, Any]) -> None:
        self._writing = self._writing or event.endswith(".send_request_headers.started")


def is_public(address: str) -> bool:
    """Whether this is an address of the public internet by itself: not one of a private network, of this machine, of a
    group, of documentation; and not one that carries another address inside (mapped, 6to4, Teredo, NAT64)."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        return ip in _UNICAST and ip.sixtofour is None and ip.teredo is None
    return True


_UNICAST: Final = ipaddress.IPv6Network("2000::/3")


@cache
def _usual_trust() -> ssl.SSLContext:
    """The authorities that browsers trust; read once, for it takes a while."""
    return httpx.create_ssl_context(trust_env=False)


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ValueError("it is no address") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("it must begin with https://host or http://host")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise ValueError("its port must be between 1 and 65535")
    if parsed.userinfo or parsed.fragment:
        raise ValueError("it must hold no user, password or fragment")
    return parsed


async def _system_resolver(host: str, port: int) -> Sequence[str]:
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))
