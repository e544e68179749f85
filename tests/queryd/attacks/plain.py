"""Runs texts on plain engines, and says what they do: a program, so that a crash or a full memory is one text's.

`python -m tests.queryd.attacks.plain FOLDER`: a line of JSON for each text comes in, a line with its outcome goes out.
"""

import contextlib
import dataclasses
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from json import dumps, loads
from pathlib import Path
from typing import NoReturn, Self

import duckdb
import pandas  # noqa: F401 - what Arrow would load anew in each child
import pyarrow as pa

from kernel.dataset_sql import quoted, relation_ddl
from tests.queryd.attacks.corpus import Attack
from tests.queryd.attacks.planted import SECRET, VARIABLE, contents, engine, plant, state

# What an attack that exceeds is given: it succeeds where it takes more.
MEMORY_BYTES, SECONDS, ROWS, FILE_BYTES = 512 << 20, 1, 100_000, 64 << 20
_HARM_SECONDS = 0.5
_FOR_CODE = re.compile(
    r"Failed to (install|load)|install the required extension|not a DuckDB extension|xtension .* not found"
)
_ROOT = Path(__file__).parents[3]


class PlainEngines:
    """The program, as those see it who ask. `folder`, which does not exist yet, is planted anew for each text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.queryd.attacks.plain", str(folder)],
            env={**os.environ, VARIABLE: SECRET, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def failure(self, attack: Attack) -> str:
        """Empty where the attack succeeds, or what happens instead."""
        return self._ask({"attack": dataclasses.asdict(attack)})

    def harm(self, text: str, names: Iterable[Sequence[str]]) -> str:
        """What a text does that it must not, where these relations are there and hold nothing; empty for nothing."""
        return self._ask({"attack": dataclasses.asdict(Attack("", text, "harms")), "names": list(names)})

    def _ask(self, question: Mapping[str, object]) -> str:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(dumps(question) + "\n")
        self._program.stdin.flush()
        answer = self._program.stdout.readline()
        return str(loads(answer)) if answer else "the program ended"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.communicate(timeout=60)


def main() -> None:
    folder = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an attack writes is no outcome
    template = folder.with_name(f"{folder.name} as planted")
    if (child := os.fork()) == 0:
        plant(template)
        os._exit(0)
    os.waitpid(child, 0)
    for line in sys.stdin:
        question = loads(line)
        fields = question["attack"]
        attack = Attack(**{**fields, "values": tuple(fields["values"])}).filled(folder)
        shutil.copytree(template, folder)
        os.chdir(folder)
        said, bounded = _in_child(attack, folder, question.get("names", []))
        if bounded and (changed := _changed(template, folder)):
            said = f"it changes {', '.join(changed)}, and takes more than it may"
        print(dumps(said), file=answers, flush=True)
        os.chdir("/")
        shutil.rmtree(folder)


def _in_child(attack: Attack, folder: Path, names: list[list[str]]) -> tuple[str, bool]:
    """What came of it, and whether a limit ended it. The parent never opens an engine, so that it can be forked."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        _end_child(attack, folder, names, writable)
    os.close(writable)
    with os.fdopen(readable) as answer:
        said = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if attack.succeeds_if in ("exceeds", "harms") and status < 0:
        # By the signal of a limit, or because it could not do without memory: bounded, as in a cell.
        return "", attack.succeeds_if == "harms"
    return (said if status == 0 else f"{said} (ended with {status})"), False


def _changed(template: Path, folder: Path) -> list[str]:
    """Files that are not as they were planted, but for those that the engine has for itself."""
    planted, found = contents(template), contents(folder)
    return [
        name
        for name in sorted(planted.keys() | found.keys())
        if planted.get(name) != found.get(name) and not name.startswith("temporary")
    ]


def _end_child(attack: Attack, folder: Path, names: list[list[str]], writable: int) -> NoReturn:
    try:
        if attack.succeeds_if == "exceeds":
            outcome = _exceeds(attack)
        else:
            outcome = _harm(attack, folder, names) if attack.succeeds_if == "harms" else _failure(attack, folder)
        os.write(writable, outcome.encode(errors="replace")[:2000])
    finally:
        os._exit(0)


def _failure(attack: Attack, folder: Path) -> str:
    with engine(folder) as connection:
        if attack.before:
            connection.execute(attack.before)
        before = state(connection, folder) if attack.succeeds_if == "changes" else {}
        try:
            leaked = pa.table({"a": [SECRET]})  # noqa: F841 - the engine finds it by the variable's name
            table = connection.execute(attack.sql, list(attack.values)).to_arrow_table()
            answer, failed = "" if table is None else str(table.to_pydict()), False
        except (duckdb.Error, RuntimeError) as error:
            answer, failed = str(error), True
        if attack.succeeds_if == "changes":
            return "" if state(connection, folder) != before else f"nothing has changed: {answer}"
        if attack.succeeds_if == "tells":
            return "" if _tells(answer, attack, folder) else f"it tells nothing: {answer}"
        if attack.succeeds_if == "reaches_for_an_extension":
            return "" if failed and _FOR_CODE.search(answer) else f"it did not look for an extension: {answer}"
        return answer if failed else ""


def _tells(answer: str, attack: Attack, folder: Path) -> bool:
    return SECRET in answer or (str(folder) in answer and str(folder) not in attack.sql)


def _harm(attack: Attack, folder: Path, names: list[list[str]]) -> str:
    with engine(folder) as connection:
        for parts in names:
            _put_in_place(connection, parts)
        before = state(connection, folder)
        _limit()
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, _HARM_SECONDS)  # of work, however busy the machine is
        try:
            answer = str(connection.sql(attack.sql).limit(ROWS).fetchall())
        except (duckdb.Error, RuntimeError, AttributeError) as error:
            answer = str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if _tells(answer, attack, folder):
            return f"it tells what it must not: {answer[:1000]}"
        changed = [key for key, value in state(connection, folder).items() if before.get(key) != value]
        return f"it changes {', '.join(changed)}" if changed else ""


def _put_in_place(connection: duckdb.DuckDBPyConnection, parts: list[str]) -> None:
    """A relation of that name, in place of one of others."""
    for kind in ("table", "view"):
        for name in (".".join(map(quoted, parts)), f"temp.{quoted(parts[-1])}"):
            with contextlib.suppress(duckdb.Error):
                connection.execute(f"drop {kind} {name}")
    for statement in relation_ddl(".".join(parts), "select 1 as x, 'nothing' as a"):
        connection.execute(statement)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(SECONDS)


def _exceeds(attack: Attack) -> str:
    _limit()
    with duckdb.connect(config={"threads": 1, "memory_limit": f"{MEMORY_BYTES // 2}B"}) as connection:
        try:
            rows = connection.execute(attack.sql, list(attack.values)).fetchmany(ROWS + 1)
        except (duckdb.OutOfMemoryException, duckdb.IOException, MemoryError):
            return ""
        except (duckdb.Error, RuntimeError) as error:
            return str(error)
    return "" if len(rows) > ROWS else f"it took no more than it may: {str(rows)[:200]}"


if __name__ == "__main__":
    main()
