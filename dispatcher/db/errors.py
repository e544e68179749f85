"""What can go wrong between a slice and Postgres, for callers that must tell the cases apart.

Verdicts on single items are data (`batcher.Quarantined`), never one of these.
"""


class DatabaseError(Exception):
    """The root; raised only as one of the below."""


class StatementError(DatabaseError):
    """A `.sql` file beside a slice is faulty, or lacks the name that was asked for: a defect of the program."""


class MigrationError(DatabaseError):
    """The schema cannot be brought to what this program needs; the text says what to do."""


class UnsafeDurability(DatabaseError):
    """The server may forget commits that it has answered."""


class Overloaded(DatabaseError):
    """The queue is full: nothing was taken over; the caller repeats later. Figures are in rows of declared cost."""

    def __init__(self, queued: int, limit: int) -> None:
        super().__init__(f"{queued} of {limit} rows are queued: repeat later")
        self.queued = queued
        self.limit = limit


class Stopped(DatabaseError):
    """The batcher takes nothing more, or ended before it came to this operation: nothing was done."""


class TransactionFailed(DatabaseError):
    """Nothing was committed, and no single operation is to blame (deadlocks, locks, a lost server): repeat later."""


class OutcomeUnknown(DatabaseError):
    """The connection was lost in COMMIT: it may have happened. The caller repeats by key, and the key answers."""
