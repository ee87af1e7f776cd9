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
        self._window: deque[bool] = deque(maxlen=WINDOW)
        self._refused = 0
        self._row = 0

    def copy(self) -> "Storm":
        """The same count, to go on with on trial: what a rolled back batch counted must be forgotten with it."""
        twin = Storm()
        twin._window, twin._refused, twin._row = self._window.copy(), self._refused, self._row
        return twin

    def refused(self) -> bool:
        """One more was refused; True when that makes it a storm."""
        self._push(True)
        self._row += 1
        return self._row >= MOST_IN_A_ROW or self._refused > MOST_IN_WINDOW

    def accepted(self) -> None:
        self._push(False)
        self._row = 0

    def _push(self, refused: bool) -> None:
        if len(self._window) == WINDOW:
            self._refused -= self._window[0]
        self._window.append(refused)
        self._refused += refused
