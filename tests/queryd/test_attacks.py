"""The corpus of attacks: each succeeds on a plain engine, and is refused by the gate or bounded by the cell.

tests/queryd/attacks has the corpus and the plain engines; tests/queryd/extensions one that reaches the network.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import duckdb
import pyarrow as pa
import pytest

from kernel.errors import TraceError
from queryd.engine import messages
from queryd.engine.frames import Kind
from queryd.engine.messages import CellLimits, Job
from queryd.engine.process import CellEndedError
from queryd.engine.processes import Start
from queryd.engine.sandbox import Sandbox, forked
from tests.queryd.attacks.corpus import SUCCESSES, Attack, attacks, classes, worth_mutating
from tests.queryd.attacks.judging import Verdict, judged, not_named
from tests.queryd.attacks.mutation import Mutator
from tests.queryd.attacks.plain import PlainEngines
from tests.queryd.attacks.planted import SECRET, contents, plant
from tests.queryd.extensions import environment
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.forks import ready, start_of, usable
from tests.queryd.harness import QuerydProcess, reason

_MOST_BOUNDED = frozenset({"SQL_REFUSED", "QUERY_LIMIT", "QUERY_FAILED"})
_REFUSALS = frozenset({"SQL_REFUSED", "NAME_AMBIGUOUS", "DATASET_NOT_FOUND", "QUERY_FAILED", "INVALID_REQUEST"})
# The datasets that there are: what else a text names, queryd does not find.
_DATASETS = frozenset({"plain", "named"})
_STOPPED_AFTER = 0.4
_ON_PLAIN = [kind for kind in classes() if kind != "network"]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainEngines]:
    with PlainEngines(tmp_path_factory.mktemp("attacked") / "folder") as made:
        yield made


def test_there_are_hundreds_of_attacks_in_a_dozen_classes() -> None:
    texts = {attack.sql for attack in attacks()}
    assert len(classes()) >= 12
    assert len(texts) >= 300
    assert all(len(attacks(kind)) >= 10 for kind in classes())
    assert {attack.succeeds_if for attack in attacks()} == SUCCESSES.keys()
    assert not [text for text in texts if SECRET in text]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", _ON_PLAIN)
def test_each_attack_succeeds_on_a_plain_engine(engines: PlainEngines, kind: str) -> None:
    failures = [(attack.sql[:200], failure) for attack in attacks(kind) if (failure := engines.failure(attack))]
    assert not failures


@pytest.mark.slow
def test_each_attack_on_the_network_reaches_it_from_an_engine_that_has_httpfs(tmp_path: Path) -> None:
    failures = []
    with _listening() as (port, heard), _engine_with_network() as program:
        for attack in attacks("network"):
            heard.clear()
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(json.dumps(attack.filled(tmp_path, port).sql) + "\n")
            program.stdin.flush()
            error = json.loads(program.stdout.readline())
            if not heard.is_set():
                failures.append((attack.sql, error))
    assert not failures


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", classes())
def test_the_gate_refuses_each_attack_but_those_that_only_take_much(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str
) -> None:
    wrong = []
    for attack in attacks(kind):
        filled = attack.filled(tmp_path, port=1)
        found = judged(connection, filled.sql)
        if not found.is_refused(_DATASETS) and attack.succeeds_if != "exceeds":
            wrong.append((attack.sql[:200], "passed"))
        if found.error is not None:
            place, message = found.error.place, found.error.message
            lines = filled.sql.split("\n")
            if not 1 <= place.line <= len(lines) or not 1 <= place.column <= len(lines[place.line - 1]) + 1:
                wrong.append((attack.sql[:200], f"at {place}"))
            if SECRET in message or (str(tmp_path) in message and str(tmp_path) not in filled.sql):
                wrong.append((attack.sql[:200], message))
    assert not wrong


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_attacks_are_refused_or_bounded_by_a_queryd_and_change_nothing(tmp_path: Path) -> None:
    """A part of the corpus over the wire, for each takes a process."""
    datasets, folder = _datasets(tmp_path), tmp_path / "attacked"
    plant(folder)
    before = contents(tmp_path / "artifacts") | contents(folder)
    wrong = []
    with QuerydProcess(tmp_path, datasets, query_memory_bytes=str(256 << 20), query_max_rows="100000") as queryd:
        client = queryd.client()
        with client.channel:
            for attack in [
                attack for kind in classes() for attack in attacks(kind)[:: 3 if kind == "exhaustion" else 9]
            ]:
                filled = attack.filled(folder, port=1)
                exceeds = attack.succeeds_if == "exceeds"
                try:
                    client.query(filled.sql, timeout=2 if exceeds else 30)
                except TraceError as error:
                    allowed = _MOST_BOUNDED if exceeds else _REFUSALS
                    if reason(error) not in allowed or _leaks(error, filled, tmp_path):
                        wrong.append((attack.sql[:200], repr(error)[:500]))
                else:
                    wrong.append((attack.sql[:200], "answered"))
            assert client.query("select x from plain").values == [(1,)]
    assert not wrong
    assert contents(tmp_path / "artifacts") | contents(folder) == before


@pytest.mark.slow
@pytest.mark.needs_namespaces
def test_no_attack_that_takes_much_is_answered_by_a_cell(tmp_path: Path) -> None:
    """Each of them, in cells with little memory and time. A part of them is asked over the wire, above."""
    limits = CellLimits(memory_bytes=256 << 20, threads=2, scratch_bytes=16 << 20)
    sandbox = usable(forked(None, limits), tmp_path)
    with start_of(sandbox, tmp_path) as start:
        answered = [
            attack.sql[:200] for attack in attacks("exhaustion") if _is_answered(attack, sandbox, tmp_path, start)
        ]
    assert not answered


def _is_answered(attack: Attack, sandbox: Sandbox, folder: Path, start: Start) -> bool:
    cell = ready(sandbox, folder, start)
    stop = threading.Timer(_STOPPED_AFTER, cell.kill)
    stop.start()
    sql = attack.filled(folder).sql
    asked = [(Kind.CHECK, sql.encode()), (Kind.DESCRIBE, messages.pack_job(Job(sql, (), 100_000))), (Kind.RUN, b"")]
    said = Kind.READY
    try:
        for kind, payload in asked:
            cell.send(kind, payload)
            while (said := cell.receive()[0]) in (Kind.ARROW, Kind.ARROW_PART, Kind.ARROW_END):
                pass
            if said is Kind.FAILED:
                break
    except CellEndedError:
        return False
    finally:
        stop.cancel()
        cell.close()
    return said is not Kind.FAILED


def _leaks(error: TraceError, attack: Attack, root: Path) -> bool:
    said = f"{error.message} {error.metadata}"
    return SECRET in said or (str(root) in said and str(root) not in attack.sql)


def _datasets(root: Path) -> FakeDatasets:
    made = FakeDatasets(root / "artifacts")
    for name in sorted(_DATASETS):
        made.add(name)
        made.publish(name, pa.table({"x": [1]}))
    return made


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mutated_attacks_are_refused_or_do_no_harm(
    connection: duckdb.DuckDBPyConnection, engines: PlainEngines
) -> None:
    """`make bench-gate` does the same with a hundred thousand."""
    honest = Path(__file__).with_name("ordinary.sql").read_text().split("\n\n")[1:]
    mutator = Mutator(20261127, worth_mutating(engines.folder), honest)
    verdicts, harm = dict.fromkeys(Verdict, 0), []
    for text in mutator.mutants(2_000):
        found = judged(connection, text)
        verdicts[found.verdict] += 1
        if found.verdict is Verdict.PASSED:
            if missing := not_named(connection, text, found.names):
                harm.append((text, f"reads {missing}, which the gate does not name"))
            if did := engines.harm(text, found.names):
                harm.append((text, did))
    assert not harm
    assert verdicts[Verdict.REFUSED] > 500, "most mutants must be SQL"
    assert verdicts[Verdict.PASSED] > 20, "some must pass, or harm is never looked for"


def test_the_judge_sees_harm(connection: duckdb.DuckDBPyConnection, engines: PlainEngines) -> None:
    """What it is for: a gate that lets through, or names too little, would be found."""
    assert not_named(connection, "with csv as (select 1) from recurring.csv, plain", (("plain",),)) == {
        'recurring."csv"'
    }
    assert "tells" in engines.harm("with csv as (select 1) from recurring.csv", [])
    assert "changes" in engines.harm("with x as (copy (select 1 as a) to 'canary.csv') from x", [])
    assert not engines.harm("select a from private.other", [("private", "other")])
    assert not engines.harm("from 'secret.csv'", [("secret.csv",)])


class _Handler(BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.heard.set()


class _Server(ThreadingTCPServer):
    """Hangs up on everyone, and remembers that there was someone."""

    daemon_threads = True

    def __init__(self, heard: threading.Event) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard = heard


@contextmanager
def _listening() -> Iterator[tuple[int, threading.Event]]:
    heard = threading.Event()
    with _Server(heard) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], heard
        server.shutdown()
        thread.join()


@contextmanager
def _engine_with_network() -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        environment.command("network"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        yield program
        program.communicate(timeout=60)
