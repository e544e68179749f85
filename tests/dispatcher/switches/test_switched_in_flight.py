"""Two hundred tasks in work when their version is replaced, and when it is taken back: none of them gets anything in
any more, and none that both versions share is disturbed."""

from collections import Counter

from tests.dispatcher.in_flight import Answers, switch_in_flight
from tests.dispatcher.in_process import InProcess

TASKS = 200
FENCED = Answers(Counter(cancel=TASKS), Counter(TASK_CANCELED=TASKS), Counter(TASK_CANCELED=TASKS))
UNDISTURBED = Answers(Counter({"continue": TASKS}), Counter(accepted=TASKS), Counter(succeeded=TASKS))


async def test_nothing_of_what_was_in_work_gets_in_and_nothing_shared_is_cancelled(dispatcher: InProcess) -> None:
    found = await switch_in_flight(dispatcher, TASKS)
    assert found.gone == {"cutover": FENCED, "rollback": FENCED}
    assert found.shared == {"cutover": UNDISTURBED, "rollback": UNDISTURBED}
    assert found.counts == {"taken back": TASKS, "restored": 2 * TASKS, "missing": 0}, (
        "of the version that was taken back stands what it made while it was active; the restored one has everything"
    )
