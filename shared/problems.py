"""Errors as RFC 9457 problem details."""

from typing import Any


class Problem(Exception):  # noqa: N818 - the name is the RFC's
    """Answered as `application/problem+json`. `detail` says what to do and never repeats the input."""

    def __init__(self, status: int, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.members = members
