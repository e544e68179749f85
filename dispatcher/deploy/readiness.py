"""Whether a staged version may take the active one's place: what it lacks, as a value. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dispatcher.deploy.barrier import Barrier
from dispatcher.deploy.progress import StagedJobRow, StagedWatermarkRow
from kernel.scopes import cursor_value, format_cursor
from traceapi.types.v1.scope_pb2 import CursorType


@dataclass(frozen=True, slots=True)
class Waiver:
    """What whoever cuts over says need not be. `watermarks`: that none goes back, nor anything else that came last is
    waited for. `cursors`: that they need not be compared, unless a source of the build goes on; all else is
    waited for."""

    watermarks: bool = False
    cursors: bool = False


NO_WAIVER = Waiver()
_REMEDY = "when it has what you need, cut over with --cursors-may-differ"
_WHILE_IT_GOES_ON = "when it has what you need, cut over with --watermarks-may-go-back"


@dataclass(frozen=True, slots=True)
class Lack:
    """What a staged version lacks.

    `unfinished`: jobs that have yet to do what was caused before the barrier. `dead`: tasks that ended as DEAD, by job;
    somebody has to retry or skip them. `behind`: datasets whose watermark would go back. `incomparable`: datasets whose
    cursors changed their type, so that nobody can tell. `underway`: datasets of which nobody can tell, for that reason
    or because what is served has no watermark, while a source of the build goes on to bring them: how far it is has to
    be judged by a person; each with where it stands and where what is served does, for people. `working`: its jobs have
    yet to do what others have brought, and no source of its own goes on, which would have to catch up first. `reading`:
    one does. `last`: its jobs have something in work, and nobody has taken a barrier yet to wait for what came before
    this try. `retaken`: one was taken, so what came before the staging is done. `awaited`: they have something in work,
    and it is not known yet that the barrier that there is was passed. `again_at`: halts of releases came to nothing,
    and the next one begins then at the earliest.
    """

    unfinished: tuple[str, ...]
    dead: tuple[tuple[str, str], ...]
    behind: tuple[str, ...]
    incomparable: tuple[str, ...]
    underway: tuple[tuple[str, str, str], ...] = ()
    working: bool = False
    reading: bool = False
    last: bool = False
    retaken: bool = False
    awaited: bool = False
    again_at: datetime | None = None

    @property
    def nothing(self) -> bool:
        """It may take the active one's place."""
        return not (self.unfinished or self.dead or self.behind or self.untold or self.last or self.awaited)

    @property
    def untold(self) -> bool:
        """Only a person can tell whether it has as much."""
        return bool(self.incomparable or self.underway)

    def but(self, waiver: Waiver) -> "Lack":
        """What is left of it where cursors need not be compared. While their source goes on that is no answer to how
        far it is: all else that is waited for would be what it has brought so far."""
        return replace(self, incomparable=()) if waiver.cursors and not self.underway else self

    def allows(self, waiver: Waiver) -> bool:
        """It may take the active one's place, or need not wait for what it lacks."""
        return self.nothing or (waiver.watermarks and self.can_be_waived)

    @property
    def only_last(self) -> bool:
        """All is done that anybody waits for: it is time for a barrier of the cutover's own."""
        return self.last and not (self.unfinished or self.dead or self.behind or self.untold)

    @property
    def can_be_waived(self) -> bool:
        """A person may have it take over without the last scopes."""
        return not self.dead and (self.retaken or not self.unfinished)

    @property
    def chases(self) -> bool:
        """It does the last scopes while what is active does further ones: without those it would get there.

        Where it has nothing to do and is behind all the same, as with a source that ends earlier, waiting is no help.
        """
        return bool(self.behind) and self.working and not (self.unfinished or self.dead or self.untold)

    @property
    def built(self) -> bool:
        """Enough to wait for a person: whoever cuts it over has the last scopes waited for, or says that they need not
        be. Under steady traffic what is active is ahead by some at every look."""
        return not (self.unfinished or self.dead or (self.behind and self.reading))

    @property
    def needs_person(self) -> bool:
        """All that it could do is done, and only a person can say that it has as much."""
        return self.untold and not (self.unfinished or self.dead or self.behind)

    @property
    def within_reach(self) -> bool:
        """It gets there by itself, in the time that its tasks take: all from before the staging is done."""
        return not (self.dead or self.untold) and (self.retaken or not self.unfinished)

    def words(self, *, most: int = 3) -> str:
        """For people: what it waits for."""
        parts: list[str] = []
        if self.dead:
            parts += [f"task {task} of {job} is dead: retry or skip it" for job, task in self.dead[:most]]
        if self.unfinished:
            parts.append(f"{_names(self.unfinished, most)} still to catch up")
        if self.behind and not parts:  # else it follows from them
            parts.append(f"the watermark of {_names(self.behind, most)} would go back")
        if self.underway:
            stands = _names([f"{name} is at {now}, what is active at {then}" for name, now, then in self.underway], 1)
            parts.append(
                f"a source of it goes on, and nobody can compare how far it is ({stands}): {_WHILE_IT_GOES_ON}"
            )
        elif self.incomparable:
            names = _names(self.incomparable, most)
            parts.append(f"the cursors of {names} have another type, which nobody can compare: {_REMEDY}")
        if not parts and (self.last or self.awaited):
            parts.append("what came last is still to be done")
        if self.again_at is not None and (self.last or self.chases) and not (self.unfinished or self.dead):
            at = self.again_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            parts.append(f"halting releases of what is active was not enough, which is done again at {at}")
        return "; ".join(parts)


def lack(
    jobs: Sequence[StagedJobRow], watermarks: Sequence[StagedWatermarkRow], barrier: Barrier | None = None
) -> Lack:
    """What a staged version lacks, from how far its own jobs and their datasets are. Where they have nothing in work
    there is nothing that a barrier would have to tell from what comes later.

    Once all of its own sources have ended, everything that they caused has to be done too; while one goes on, the
    watermarks say how far it is.
    """
    sources = [job for job in jobs if job.kind == "source"]
    ended = bool(sources) and not any(job.open for job in sources)
    working = [job for job in jobs if job.kind != "source"]
    in_work = any(job.open for job in working)
    reading = any(job.open for job in sources)
    # Of other cursors it can be told that there are none yet, where a source is about to bring some.
    comparable = [mark for mark in watermarks if not mark.retyped or (mark.reading and mark.cursor_key is None)]
    return Lack(
        unfinished=tuple(job.job for job in working if job.replaying or job.unfinished or (ended and job.open)),
        dead=tuple((job.job, job.dead_task_id) for job in jobs if job.dead_task_id is not None),
        behind=tuple(mark.dataset_id for mark in comparable if _is_behind(mark)),
        incomparable=tuple(mark.dataset_id for mark in watermarks if mark.retyped),
        underway=tuple(
            _stands(mark) for mark in watermarks if mark.reading and (mark.retyped or mark.former_key is None)
        ),
        working=in_work and not reading,
        reading=reading,
        last=barrier is not None and not barrier.good and in_work,
        retaken=barrier is not None and barrier.retaken,
        awaited=barrier is not None and not barrier.passed and in_work,
        again_at=None if barrier is None else barrier.again_at,
    )


def _is_behind(mark: StagedWatermarkRow) -> bool:
    return mark.former_key is not None and (mark.cursor_key is None or mark.cursor_key < mark.former_key)


def _stands(mark: StagedWatermarkRow) -> tuple[str, str, str]:
    return (
        mark.dataset_id,
        _cursor(mark.cursor_type, mark.cursor_key),
        _cursor(mark.former_cursor_type, mark.former_key),
    )


def _cursor(cursor_type: int, key: bytes | None) -> str:
    return "no watermark" if key is None else format_cursor(cursor_value(CursorType.ValueType(cursor_type), key))


def _names(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
