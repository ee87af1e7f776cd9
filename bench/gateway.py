"""A bare HTTP provider on loopback, a process by itself: it answers `sendsms` as Kannel does, at once, and says when
each request came. `python -m bench.gateway` is run by the bench.

On standard output: its port, then one line a request, `<last eleven digits of the number> <monotonic second>`.
"""

import asyncio
import re
import sys
import time

import uvloop

_BODY = b"0: Accepted for delivery"
_ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_TO = re.compile(rb"[?&]to=[^& ]*?([0-9]{11})(?=[& ])")


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            at = time.monotonic()
            writer.write(_ANSWER)
            if found := _TO.search(head):
                sys.stdout.write(f"{found[1].decode()} {at}\n")
                sys.stdout.flush()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, limit=2**20)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
