"""Telling a few bad records from a broken producer."""

from collections import deque

WINDOW = 500
MOST_IN_WINDOW = 100
"""20 % of the window."""
MOST_IN_A_ROW = 50


class Storm:
    """Counts refusals among the newest records of one partition. More than 100 of the last 500, or 50 in a row, is a
    storm: a producer broke, and dead-lettering its whole day would hide that. The count starts anew with each owner."""

    def __init__(self) -> None:
        self._count = 0
        self._refusals: deque[int] = deque()
        """Which of all records counted were refused, as far as they lie in the window."""
        self._row = 0

    def copy(self) -> "Storm":
        """The same count, to go on with on trial: what a rolled back batch counted must be forgotten with it."""
        twin = Storm()
        twin._count, twin._refusals, twin._row = self._count, self._refusals.copy(), self._row
        return twin

    def refused(self) -> bool:
        """One more was refused; True when that makes it a storm."""
        self._count += 1
        self._row += 1
        self._refusals.append(self._count)
        while self._refusals[0] <= self._count - WINDOW:
            self._refusals.popleft()
        return self._row >= MOST_IN_A_ROW or len(self._refusals) > MOST_IN_WINDOW

    def accepted(self) -> None:
        self._count += 1
        self._row = 0
