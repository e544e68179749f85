"""The product does what the model does, whatever comes in whatever order.

Here it is the same few examples each time. `TRACE_MODEL_EXAMPLES=2000 make pytest ARGS=tests/model` looks at as many
others.
"""

import os
from asyncio import Runner
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from dispatcher.db.pool import PoolConfig, open_pool
from tests.chaos.checker import check
from tests.chaos.collect import collect, install_audit
from tests.chaos.evidence import Bounds
from tests.dispatcher.in_process import in_process_dispatcher
from tests.model.machine import Machine

_EXAMPLES = os.environ.get("TRACE_MODEL_EXAMPLES")
_SETTINGS = settings(
    max_examples=int(_EXAMPLES or 20),
    stateful_step_count=40,
    derandomize=_EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # What fails is told as it happened: which of several tasks goes first is the product's choice, so the same steps
    # once more may lead elsewhere.
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
_MAY_BE_MISSED = 3
_RARE = frozenset(
    {
        "claim claimed",
        "claim run_index",
        "claim STALE_LEASE",
        "claim STREAM_BUSY",
        "claim TASK_CANCELED",
        "claim TASK_TAKEN",
        "beat continue",
        "beat cancel",
        "beat lease_lost",
        "emit accepted",
        "emit STALE_LEASE",
        "end succeeded",
        "end backoff",
        "end canceled",
        "end queued",
        "end STALE_LEASE",
        "leases expired",
    }
)
"""What must have been answered for all of it to say anything."""


@pytest.mark.slow
@pytest.mark.timeout(0 if _EXAMPLES else 600)
def test_two_dispatchers_do_what_the_model_does(database: str, tmp_path: Path) -> None:
    install_audit(database)
    answers = Counter[str]()
    with Runner() as runner:
        stack = AsyncExitStack()
        replicas = []
        for _ in range(2):
            pool = runner.run(stack.enter_async_context(open_pool(PoolConfig(database))))
            replicas.append(runner.run(stack.enter_async_context(in_process_dispatcher(pool, tmp_path))))
        try:
            machine = type("Example", (Machine,), {"runner": runner, "replicas": replicas, "answers": answers})
            run_state_machine_as_test(machine, settings=_SETTINGS)
        finally:
            runner.run(stack.aclose())
    # Which of several tasks goes first is the product's choice, so not every run meets every answer.
    assert len(_RARE - answers.keys()) <= _MAY_BE_MISSED, dict(answers)
    evidence = collect(database, None, None, Bounds())
    evidence.drained = evidence.attended = False
    assert [str(violation) for violation in check(evidence)] == []
