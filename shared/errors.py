"""What went wrong, told as what to do about it (house rule 5).

| error          | the caller does                                                        |
| -------------- | ---------------------------------------------------------------------- |
| `Retry`        | the same again later: a dependency is away, nothing was lost            |
| `Reject`       | this one input to the dead letters, its neighbours go on                |
| `Halt`         | stop this partition, alert, wait for a person (`headsup resume`)        |
| `LostOwnership`| drop this partition without committing: another member owns it now      |
| `AskPerson`    | hold this case for a person, with the reason                            |

Anything else is a defect in our code: the worker finds the one input that brings it out, keeps that as a dead letter
for a second try after the repair, and halts the partition when that happens too often.
"""


class HeadsupError(Exception):
    """Base of all errors that carry an instruction. `reason` is one plain sentence for logs and people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(HeadsupError):  # noqa: N818 - the name is the instruction
    """A dependency (bus, database) is away for now. Nothing was applied; do the same again after a pause."""


class Reject(HeadsupError):  # noqa: N818
    """This input can never be applied: dead-letter it and go on.

    `field` is the dotted path of the offending member ("lines.0.quantity"), empty where the whole input is at fault.
    The reason never repeats the value: values hold phones.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.field = field


class Halt(HeadsupError):  # noqa: N818
    """Going on would lose or falsify data: stop the partition, alert, and wait for a person."""


class LostOwnership(HeadsupError):  # noqa: N818
    """Another member owns the partition by now; this transaction was rolled back and must not be tried again."""


class AskPerson(HeadsupError):  # noqa: N818
    """No rule may decide this: a person does, with the reason at hand."""
