"""`make demo`: the whole stack on real chain data, from nothing to three query results; a change that goes in and comes
out again; and back to nothing.

It has a home of its own, `.trace/demo`, made anew by each run: nobody's data are there. The stack is tied to this
process (the kernel stops it with us), unless KEEP=1 leaves it running. A run that was interrupted leaves at most files,
which the next one removes.
"""

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.text import Text

from ctl import demo_change
from ctl.commands.dag import check_followed, deploy_document
from ctl.connection import Connection, connect
from ctl.document import Document, validate
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME, Home
from ctl.interrupts import held_back, interruptible
from ctl.local.launch import hurry_stack, start_detached, stop_stack
from ctl.local.programs import StackSettings
from ctl.query_stream import QueryStream
from ctl.render import console, graph, results
from ctl.render.values import count, duration
from ctl.watch import follow_deployment

_EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "ethereum" / "dag.yaml"
_MARKER = "demo"
_QUERY_SECONDS = 60.0
_PATIENCE_SECONDS = 90.0
_NEXT_QUERY = 'select * from "eth.checked" order by number limit 10'


@dataclass(frozen=True, slots=True)
class Question:
    """A query of the demo. `meaning` says in a line what its answer means, and raises where the answer is wrong."""

    title: str
    sql: str
    meaning: Callable[[list[dict[str, Any]]], str]


def _links(rows: list[dict[str, Any]]) -> str:
    found = rows[0]
    if found["broken_links"] or found["wrong_counts"] or not found["blocks"]:
        raise CtlError("the checked blocks are not what the files say", remedy="look at the dataset eth.checked")
    return (
        f"0 broken links: each of {count(found['links'])} blocks names the block before it as its parent (the first has"
        f" none here), and all {count(found['blocks'])} have as many transactions as they say, also the"
        f" {count(found['empty_blocks'])} that have none."
    )


def _totals(rows: list[dict[str, Any]]) -> str:
    if any(row["difference"] for row in rows):
        raise CtlError("the ranges do not add up to the source", remedy="look at the dataset eth.block_fees")
    return (
        f"{len(rows)} full ranges of 100: gas read from the source and gas in the partitions made of it are equal, to"
        " the last unit. Block 501,000 waits for the rest of its range."
    )


def _miners(rows: list[dict[str, Any]]) -> str:
    return (
        f"Stored nowhere: eth.gas_by_miner is SQL over the checked partitions, evaluated for this query. These"
        f" {len(rows)} mined {count(sum(row['blocks'] for row in rows))} of the blocks."
    )


def _senders(rows: list[dict[str, Any]]) -> str:
    if not rows[0]["senders"]:
        raise CtlError("the new column is empty", remedy="look at the dataset eth.block_fees")
    return f"The new version is served: {count(int(rows[0]['senders']))} senders, counted block by block."


QUESTIONS = (
    Question(
        "Is the chain whole?",
        """
        select count(*) as blocks,
               count(linked) as links,
               count(*) filter (where not linked) as broken_links,
               count(*) filter (where not counted) as wrong_counts,
               count(*) filter (where transaction_rows = 0) as empty_blocks
        from "eth.checked"
        """,
        _links,
    ),
    Question(
        "Do the ranges add up to the source?",
        """
        select b.number // 100 * 100 as first_block,
               count(*) as blocks,
               sum(f.transactions) as transactions,
               sum(b.gas_used) as gas_in_source,
               sum(f.gas_used) as gas_in_ranges,
               sum(b.gas_used) - sum(f.gas_used) as difference
        from "eth.blocks" b join "eth.block_fees" f using (number)
        group by all order by all
        """,
        _totals,
    ),
    Question(
        "Who mined the most gas?",
        """
        select miner, blocks, transactions, gas_used
        from "eth.gas_by_miner" order by gas_used desc, miner limit 5
        """,
        _miners,
    ),
)


def main() -> int:
    """The exit code, as tracectl's."""
    try:
        with interruptible(signal.SIGTERM, signal.SIGHUP):
            return _demo()
    except KeyboardInterrupt:
        console.stderr().print("interrupted; everything is stopped")
        return 130
    except BrokenPipeError:  # nobody reads it any more, as with `| head`: everything is stopped
        return 128 + signal.SIGPIPE


def _demo() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="The whole stack on real chain data.")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME / "demo", help="made anew; default .trace/demo")
    home = Home.at(parser.parse_args().home)
    keep = os.environ.get("KEEP", "").lower() in ("1", "true", "yes")
    screen = console.stdout()
    began = time.monotonic()
    try:
        _clear(home)
        try:
            _run(home, screen, tied=not keep)
        except BaseException:
            _stop(home, screen)
            raise
        if not keep:
            _stop(home, screen)
    except CtlError as error:
        console.print_error(error)
        return int(error.exit_code)
    screen.print(f"\n[good]That was it, in {duration(time.monotonic() - began)}.[/good]")
    _say_what_next(home, screen, running=keep)
    return int(ExitCode.OK)


def _run(home: Home, screen: Console, *, tied: bool) -> None:
    _title(screen, "Starting Postgres, dispatcher, wrapper and queryd")
    settings = StackSettings(port=0, sandbox=os.environ.get("TRACE_SANDBOX", "bubblewrap"))
    start_detached(home, settings, lambda line: screen.print(line, markup=False, style="hint"), tied=tied)
    with connect(home.root) as connection:
        _deploy(connection, screen)
        for question in QUESTIONS:
            _ask(connection, question, screen)
        _change(connection, screen)


def _deploy(connection: Connection, screen: Console) -> None:
    document = Document.read(_EXAMPLE)
    _title(screen, f"Deploying {_short(_EXAMPLE)}: 1,001 real Ethereum blocks and their transactions")
    spec = validate(connection, document).spec
    screen.print(graph.draw(spec, screen.width))
    deployment = deploy_document(connection, document).deployment
    _title(screen, "Every block becomes an event, every event a task for each job that reads it")
    try:
        followed = follow_deployment(connection, deployment, screen, give_up_after=_PATIENCE_SECONDS)
    except CtlError as error:
        raise CtlError(error.message, where=str(connection.home.logs), remedy="read the logs there") from error
    check_followed(connection, followed)


def _change(connection: Connection, screen: Console) -> None:
    """The second act: edit, plan, deploy, cutover; and back."""
    document = Document.read(_EXAMPLE)
    _title(screen, "Second act: the pipeline changes. A column more in the job block_fees:")
    demo_change.show_edit(screen)
    _title(screen, "What that means, and then its versions are built beside those that are read")
    demo_change.deploy(connection, demo_change.changed(document), screen, _PATIENCE_SECONDS)
    _ask(connection, Question("Who sent these transactions?", demo_change.COLUMNS, _senders), screen)
    _title(screen, "And back: tracectl dag rollback ethereum")
    demo_change.roll_back(connection, "ethereum", screen)
    _ask(connection, QUESTIONS[1], screen)


def _ask(connection: Connection, question: Question, screen: Console) -> None:
    _title(screen, question.title)
    with connection.errors(question.title), QueryStream(connection, question.sql, timeout=_QUERY_SECONDS) as stream:
        answer = pa.Table.from_batches(stream.batches(), schema=stream.schema())
    screen.print(results.arrow_table(answer))
    screen.print(Text(question.meaning(answer.to_pylist()), "good"))


def _clear(home: Home) -> None:
    """A fresh home; ends what an earlier run left on it. Raises CtlError where the folder is not the demo's own."""
    marker = home.root / _MARKER
    if home.root.exists() and any(home.root.iterdir()) and not marker.exists():
        raise CtlError(
            f"{home.root} is not a home that the demo made", remedy="name another folder with --home, or remove it"
        )
    stop_stack(home, lambda line: None)
    _remove(home.root, marker)
    home.root.parent.mkdir(parents=True, exist_ok=True)
    home.root.mkdir(mode=0o700)
    marker.write_text("Made by `make demo`, which removes the whole folder at its next run.\n")


def _remove(folder: Path, marker: Path) -> None:
    """Also what is read-only: unpacked bundles are. The marker goes last, so that the folder stays known as ours."""
    if not folder.exists():
        return
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != marker:
            entry.unlink()
    marker.unlink(missing_ok=True)
    folder.rmdir()


def _stop(home: Home, screen: Console) -> None:
    """Stops everything, to its end; who asks a second time gets it at once."""
    with held_back(lambda: hurry_stack(home)):
        _title(screen, "Stopping")
        stop_stack(home, lambda line: screen.print(line, markup=False, style="hint"))


def _title(screen: Console, text: str) -> None:
    screen.print(Text(f"\n{text}", "bold"))


def _say_what_next(home: Home, screen: Console, *, running: bool) -> None:
    tracectl = shlex.quote(_short(Path(sys.executable).parent / "tracectl"))
    lines = [f"export TRACE_HOME={shlex.quote(_short(home.root))}"]
    if running:
        lines += [f"{tracectl} status"]
    else:
        lines += [f"{tracectl} up --detach --port 0      # starts it again, with its data"]
    lines += [
        f"{tracectl} dag show ethereum",
        f"{tracectl} dag history ethereum",
        f"{tracectl} task ls --job checked",
        f"{tracectl} query {_NEXT_QUERY!r}",
        f"{tracectl} down",
    ]
    screen.print("It still runs. Next:" if running else "Try next (KEEP=1 make demo leaves it running):")
    for line in lines:
        screen.print(f"  {line}", markup=False)


def _short(path: Path) -> str:
    """Relative to where we are, where that is shorter."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


if __name__ == "__main__":
    sys.exit(main())
