"""A short chaos in CI: `make chaos` runs as many as are asked for. And the parts of the harness that can be wrong by
themselves: a proxy that does not cut, or a plan that is not its seed's, would make every run look well."""

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos import ledger
from tests.chaos.plan import plan_of
from tests.chaos.proxy import Endpoint, Proxy, Way
from tests.chaos.run import run
from tests.chaos.steps import StepKind

SEEDS = {"stream": 1, "sqs": 7}
"""Of each way that wake-ups go, one."""
MOST_RUNS = 4
FEW_EVENTS = 150
SECONDS = 30.0
LONGEST_SECONDS = 900
"""A run waits for progress; on a busy machine it may take long."""


def _seeds_of(wakeups: str) -> list[int]:
    """The first few of them, from the one of that way on."""
    seeds = range(SEEDS[wakeups], SEEDS[wakeups] + 100)
    return [seed for seed in seeds if plan_of(seed, 1.0).wakeups == wakeups][:MOST_RUNS]


@pytest.mark.acceptance
@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(LONGEST_SECONDS)
@pytest.mark.parametrize("wakeups", SEEDS)
def test_a_run_under_faults_breaks_no_promise_and_is_not_vacuous(tmp_path: Path, wakeups: str) -> None:
    """Which work a fault hits depends on the machine: one in which nothing rare happened is followed by another one."""
    missing: list[list[str]] = []
    for seed in _seeds_of(wakeups):
        result = run(seed, tmp_path / f"home-{seed}")
        assert result.wakeups == wakeups
        assert [str(violation) for violation in result.violations] == []
        if not result.missing:
            return
        missing.append(list(result.missing))
    raise AssertionError(f"vacuous were all of {len(missing)} runs: {missing}")


@pytest.mark.acceptance
@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(LONGEST_SECONDS)
def test_a_bug_in_the_real_programs_is_found(tmp_path: Path) -> None:
    """Planted in the dispatchers; so what goes from them through the database to the checker is whole. One that strikes
    with every emit, whatever the faults hit."""
    result = run(SEEDS["stream"], tmp_path / "home", events=FEW_EVENTS, bug="consumer-forgotten", changing=False)
    assert "S2" in {violation.invariant for violation in result.violations}


def test_a_seed_is_a_plan() -> None:
    plans = [plan_of(seed, 1.0) for seed in range(200)]
    assert plans == [plan_of(seed, 1.0) for seed in range(200)]
    assert len({plan.faults for plan in plans}) == 200
    assert {step.kind for plan in plans[:20] for step in plan.steps} == set(StepKind)
    for plan in plans:
        assert {step.kind for step in plan.steps} >= {StepKind.ROLLBACK, StepKind.COLLECT}
        assert any(fault.step is not None for fault in plan.faults)
    assert {fault.kind for plan in plans for fault in plan.faults} == {f.kind for p in plans[:20] for f in p.faults}


def test_the_ledger_names_each_run_once_and_none_was_violated_since_it_was_corrected() -> None:
    entries = ledger.read(ledger.LEDGER)
    assert len({(entry.seed, entry.commit) for entry in entries}) == len(entries)
    violated = [number for number, entry in enumerate(entries) if entry.outcome == "violated"]
    assert all(entries[number].note for number in violated), "say what it was"
    assert len(entries) >= 300
    assert len(entries) - violated[-1] > 30, "since the last one was corrected"


@contextmanager
def echoing() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65_536):
                        connection.sendall(data)
                except OSError:
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def proxied() -> Iterator[tuple[Proxy, socket.socket]]:
    """A connection through a proxy that has carried something."""
    with echoing() as port, Proxy(random.Random(1)) as proxy:
        through = proxy.add("route", Endpoint(), Endpoint(port))
        with socket.create_connection(("127.0.0.1", through), timeout=SECONDS) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
            yield proxy, client


def _ends(client: socket.socket) -> bool:
    try:
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_a_cut_ends_the_connection_within_what_is_being_sent(proxied: tuple[Proxy, socket.socket]) -> None:
    proxy, client = proxied
    assert proxy.cut(["route"]) == 1
    client.sendall(b"x" * 1000)
    assert _ends(client)


def test_a_refused_route_takes_no_new_connection_and_keeps_those_it_has(proxied: tuple[Proxy, socket.socket]) -> None:
    proxy, client = proxied
    proxy.refuse(["route"], refused=True)
    with socket.create_connection(client.getpeername(), timeout=SECONDS) as other:
        assert _ends(other)
    client.sendall(b"still")
    assert client.recv(5) == b"still"
    proxy.refuse(["route"], refused=False)
    with socket.create_connection(client.getpeername(), timeout=SECONDS) as other:
        other.sendall(b"again")
        assert other.recv(5) == b"again"


def test_what_is_held_arrives_when_it_is_released_and_is_lost_with_a_cut(proxied: tuple[Proxy, socket.socket]) -> None:
    proxy, client = proxied
    proxy.hold(["route"], Way.REPLIES)
    client.sendall(b"later")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(5)
    proxy.release(["route"])
    client.settimeout(SECONDS)
    assert client.recv(5) == b"later"
