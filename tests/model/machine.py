"""The state machine: whatever workers, people, duties and time may do, in any order, on either of two dispatchers.

Each step does one thing to the product and to the model, compares what both answer, and then what stands. Workers use
leases that they have and leases that they had. One rule chooses among the steps that mean something now: with a rule
for each, most examples would have too few of them to come to anything.
"""

from asyncio import Runner
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.dispatcher.builders import verdict
from tests.dispatcher.in_process import InProcess
from tests.model.model import Model
from tests.model.tasks import HOPS, RANGES, Claim, Key, Lease
from tests.model.world import World

T = TypeVar("T")

_MOST_NUMBERS = 12
_MOST_CANCELED = 6
_OUTCOMES = ("success", "success", "failure", "failure", "canceled", "returned")


class Machine(RuleBasedStateMachine):
    """One example, on a DAG of its own. A subclass has the loop, and the two dispatchers that run in it."""

    runner: ClassVar[Runner]
    replicas: ClassVar[Sequence[InProcess]]
    answers: ClassVar[Counter[str]]
    """How often what was answered to whom, in all examples: `end STALE_LEASE`."""

    def __init__(self) -> None:
        super().__init__()
        self._world = self._do(World.open(self.replicas))
        self._model = Model()
        self._claims: list[tuple[Claim, Key]] = []
        self._leases: list[Lease] = []
        self._runs: list[list[Lease]] = []
        self._replica = 0

    def teardown(self) -> None:
        self._do(self._world.close())

    def _do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @invariant()
    def what_stands_is_what_the_model_says(self) -> None:
        assert self._do(self._world.standing()) == self._model.standing()

    @initialize()
    def begin(self) -> None:
        self._publish(3, watermark=True)
        self.what_stands_is_what_the_model_says()
        self._release(6)

    @rule(data=st.data(), replica=st.integers(0, 1))
    def step(self, data: st.DataObject, replica: int) -> None:
        self._replica = replica
        step = data.draw(st.sampled_from(self._steps()), "step")
        getattr(self, f"_{step}")(*(data.draw(argument) for argument in _ARGUMENTS[step]))

    def _steps(self) -> list[str]:
        """Names of what may be done now; what leads further more than once."""
        steps = ["claim"] * 4 * self._any("released")
        steps += ["end", "emit", "end", "emit", "beat"] * bool(self._leases)
        steps += ["end_a_run", "beat_of_a_run"] * bool(self._runs)
        steps += ["release", "release"] * self._any("queued", "released")
        steps += ["expire", "expire"] * self._any("running") + ["end_backoffs"] * self._any("backoff")
        steps += ["pass_time", "pass_time"] * self._any("running", "released", "backoff")
        steps += ["retry", "skip"] * self._any("dead") + ["retry"] * self._any("succeeded")
        steps += ["move_finished"] * self._any("succeeded", "canceled", "skipped")
        steps += ["publish"] * (self._model.published < _MOST_NUMBERS)
        steps += ["cancel"] * (len(self._in("canceled")) < _MOST_CANCELED)
        steps += ["resume", "resume"] if self._model.paused else ["pause"]
        steps += ["claim_once_more"] * bool(self._claims) + ["claim_whatever_it_is"]
        return steps

    def _in(self, *states: str) -> list[Key]:
        return [key for key, task in self._model.tasks.items() if task.state in states]

    def _any(self, *states: str) -> bool:
        return bool(self._in(*states))

    # What comes in, time, and duties.

    def _publish(self, count: int, watermark: bool) -> None:
        numbers = range(self._model.published + 1, self._model.published + count + 1)
        self._do(self._world.publish(self._replica, numbers, watermark=watermark))
        self._model.publish(count, watermark=watermark)

    def _pass_time(self) -> None:
        """And with it the duty that moves watermarks."""
        self._do(self._world.pass_time())
        self._model.advance()
        self._do(self.replicas[self._replica].derive())
        self._model.derive()

    def _release(self, room: int) -> None:
        keys = {task_id: key for key, task_id in self._world.ids.items()}
        self._model.released([keys[task_id] for task_id in self._do(self._world.release(self._replica, room))], room)

    def _expire(self) -> None:
        taken = self._do(self.replicas[self._replica].reap())
        self.answers["leases expired"] += taken
        assert taken == self._model.expire()

    def _end_backoffs(self) -> None:
        assert self._do(self._world.end_backoffs(self._replica)) == self._model.end_backoffs()

    def _move_finished(self) -> None:
        """Out of the hot tables; to whoever calls nothing has changed."""
        self._do(self.replicas[self._replica].keep())
        self._model.move_finished()

    # Workers.

    def _claim(self, index: int) -> None:
        self._take(Claim(len(self._claims)), _pick(self._in("released"), index))

    def _claim_whatever_it_is(self, index: int) -> None:
        self._take(Claim(len(self._claims)), _pick(list(self._model.tasks), index))

    def _claim_once_more(self, index: int) -> None:
        """The same call again, however late."""
        self._take(*_pick(self._claims, index))

    def _take(self, claim: Claim, key: Key) -> None:
        self._claims.append((claim, key))
        response = self._do(self._world.claim(self._replica, claim, key))
        (result,) = response.results
        self.answers[f"claim {verdict(result)}"] += 1
        expected = self._model.claim(claim, key) if key.job == HOPS else self._model.claim_run(claim, key)
        if isinstance(expected, str):
            assert verdict(result) == expected
        elif isinstance(expected, Lease):
            assert (verdict(result), result.claimed.attempt) == ("claimed", expected.attempt)
            self._leases.append(expected)
        else:
            assert verdict(result) == "run_index"
            run = [(task.scope.cursor.int64_value, task.attempt) for task in response.runs[0].tasks]
            assert run == [(lease.key.number, lease.attempt) for lease in expected]
            self._runs.append(expected)

    def _beat(self, index: int) -> None:
        self._extend(_latest(self._leases, index))

    def _beat_of_a_run(self, index: int) -> None:
        self._extend(_latest(self._runs, index)[-1])

    def _extend(self, lease: Lease) -> None:
        answer = self._do(self._world.beat(self._replica, lease))
        self.answers[f"beat {answer}"] += 1
        assert answer == self._model.beat(lease)

    def _emit(self, index: int, right: bool) -> None:
        lease = _latest(self._leases, index)
        answer = self._do(self._world.emit(self._replica, lease, right=right))
        self.answers[f"emit {answer}"] += 1
        assert answer == self._model.emit(lease, right=right)

    def _end(self, index: int, outcome: str, stated: int) -> None:
        self._complete([_latest(self._leases, index)], outcome, stated)

    def _end_a_run(self, index: int, outcome: str, whole: bool) -> None:
        """Or only the first task of it that is left, where it went well."""
        run = _latest(self._runs, index)
        left = [lease for lease in run if self._model.tasks[lease.key].held_by(lease)] or run
        self._complete(left if whole or outcome != "success" else left[:1], outcome, 0)

    def _complete(self, leases: Sequence[Lease], outcome: str, stated: int) -> None:
        answers = self._do(self._world.complete(self._replica, leases, outcome, stated))
        self.answers.update(f"end {answer}" for answer in answers)
        assert answers == self._model.complete(leases, outcome, stated)

    # People.

    def _cancel(self, index: int) -> None:
        key = _pick(list(self._model.tasks), index)
        assert self._do(self._world.cancel(self._replica, key)) == self._model.cancel(key)

    def _retry(self, index: int) -> None:
        """What is dead; and what has succeeded, of which nothing comes."""
        key = _pick(self._in("dead", "succeeded"), index)
        assert self._do(self._world.retry(self._replica, key)) == self._model.retry(key)

    def _skip(self, index: int) -> None:
        key = _pick(self._in("dead"), index)
        assert self._do(self._world.skip(self._replica, key)) == self._model.skip(key)

    def _pause(self, job: str) -> None:
        self._do(self._world.pause(self._replica, job))
        self._model.pause(job)

    def _resume(self, job: str) -> None:
        self._do(self._world.resume(self._replica, job))
        self._model.resume(job)


_INDEX = st.integers(0, 1_000)
_JOB = st.sampled_from(["", HOPS, RANGES])
_ARGUMENTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "publish": (st.integers(1, 3), st.booleans()),
    "pass_time": (),
    "release": (st.integers(1, 6),),
    "expire": (),
    "end_backoffs": (),
    "move_finished": (),
    "claim": (_INDEX,),
    "claim_whatever_it_is": (_INDEX,),
    "claim_once_more": (_INDEX,),
    "beat": (_INDEX,),
    "beat_of_a_run": (_INDEX,),
    "emit": (_INDEX, st.sampled_from([True, True, False])),
    "end": (_INDEX, st.sampled_from(_OUTCOMES), st.integers(0, 1)),
    "end_a_run": (_INDEX, st.sampled_from(_OUTCOMES), st.booleans()),
    "cancel": (_INDEX,),
    "retry": (_INDEX,),
    "skip": (_INDEX,),
    "pause": (_JOB,),
    "resume": (_JOB,),
}


def _pick(items: Sequence[T], index: int) -> T:
    return items[index % len(items)]


def _latest(items: Sequence[T], index: int) -> T:
    """Counted from the last one on, and rather one of the last: that is most likely alive."""
    return items[-1 - (index % len(items) if index % 3 == 0 else index % min(len(items), 3))]
