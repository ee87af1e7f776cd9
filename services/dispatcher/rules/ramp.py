"""Ramp: the first notices of a template version are released by a person, then ever more of them go by themselves."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ramp:
    """`first` go by a person's release; then, until so many were sent in all, that share (in per cent) by themselves;
    after the last stage all do."""

    first: int = 20
    stages: tuple[tuple[int, int], ...] = ((100, 5), (500, 25))


def share(sent: int, ramp: Ramp) -> int:
    """The per cent that go by themselves when `sent` of this template version have gone."""
    if sent < ramp.first:
        return 0
    return next((percent for until, percent in ramp.stages if sent < until), 100)


def place(notice_id: str) -> int:
    """Where a notice stands from 0 to 99: always the same, so that looking again never changes its lot."""
    return int.from_bytes(hashlib.sha256(notice_id.encode()).digest()[:4], "big") % 100


def goes(notice_id: str, sent: int, ramp: Ramp) -> tuple[bool, str]:
    """Whether it goes by itself, and why not in words."""
    percent = share(sent, ramp)
    if place(notice_id) < percent:
        return True, ""
    if percent == 0:
        return False, f"the first {ramp.first} of a template version are released by a person; {sent} have gone"
    return False, f"at this stage {percent} % of a template version go by themselves; {sent} have gone"
