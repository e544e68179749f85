"""Writes docs/reference/task_states.md from the table of transitions: `python -m tools.states_page FOLDER`."""

import sys
from pathlib import Path

from dispatcher.tasks.state import FINAL, TRANSITIONS, TaskState
from traceapi.types.v1 import task_pb2

OUTPUT = Path("docs/reference/task_states.md")

_OPENING = """\
<!-- Generated from dispatcher/tasks/state.py by `make generate`. Do not edit. -->
# The states of a task

Every change of a task is one of the rows below: what happens, in which states it can happen, and where it leads. The
SQL repeats each row as a guard, constraints of the table tie states to what they need, and one test holds the table,
the SQL and the contract equal.

Only a running task holds a lease, and only who holds it can change anything. That a job version was superseded, rolled
back or paused is no state of its tasks: it is one row elsewhere, which every guard reads.
"""


def page() -> str:
    """The diagram, the states with the contract's words, and the rows."""
    arrows = [
        f"    {before} --> {row.after}: {row.event}"
        for row in TRANSITIONS
        for before in sorted(row.before, key=list(TaskState).index)
    ]
    ends = [f"    {state} --> [*]" for state in TaskState if state in FINAL]
    diagram = ["```mermaid", "stateDiagram-v2", "    [*] --> queued", *arrows, *ends, "```", ""]
    rows = [
        f"| `{row.event}` | {', '.join(sorted(f'`{state}`' for state in row.before))} | `{row.after}` |"
        for row in TRANSITIONS
    ]
    numbers = [task_pb2.TaskState.Value(f"TASK_STATE_{state.upper()}") for state in TaskState]
    states = [
        f"| `{state}` | {number} | {'yes' if state in FINAL else ''} |"
        for state, number in zip(TaskState, numbers, strict=True)
    ]
    return "\n".join(
        [
            _OPENING,
            *diagram,
            "| state | number in the contract | final |\n|---|---|---|",
            *states,
            "",
            "| what happens | in | leads to |\n|---|---|---|",
            *rows,
            "",
        ]
    )


def main(folder: str) -> None:
    """Write the page below `folder`, at its path in the tree."""
    target = Path(folder) / OUTPUT
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
