"""Programs in place of dispatcher, wrapper and queryd: they listen, write ready files, misbehave when told to.

`make_programs` writes packages of those names into a folder; a stack that finds them first on PYTHONPATH starts them.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from kernel.ready import write_ready_file
from tests.ctl.canned import Canned
from tests.ctl.fake_control import serve

FAULT = "FAKE_FAULT"
"""`PROGRAM:exit` ends before it serves, `PROGRAM:deaf` ignores the first SIGTERM, `PROGRAM:mute` all of them."""

_LISTENERS = {
    "dispatcher": {"control": "TRACE_CONTROL_LISTEN", "internal": "TRACE_INTERNAL_LISTEN"},
    "wrapper": {"wrapper": "TRACE_WRAPPER_LISTEN"},
    "queryd": {"query": "TRACE_QUERY_LISTEN"},
}


def make_programs(folder: Path) -> str:
    """A PYTHONPATH under which `python -m dispatcher.main` and the others are the fakes."""
    for name in _LISTENERS:
        package = folder / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "main.py").write_text(f"from tests.ctl.fake_programs import run\nrun({name!r})\n")
    return os.pathsep.join([str(folder), str(Path(__file__).resolve().parents[2])])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(name: str) -> None:
    fault = os.environ.get(FAULT, "").partition(":")
    misbehaves = fault[2] if fault[0] == name else ""
    _say(f"{name} begins")
    _say(f"artifacts: {os.environ['TRACE_ARTIFACTS']}")
    if misbehaves == "exit":
        sys.exit(f"{name} cannot go on: a reason")
    terms = 0

    def on_term(number: int, frame: FrameType | None) -> None:
        nonlocal terms
        terms += 1
        _say(f"{name} hears SIGTERM {terms}")
        if misbehaves != "mute" and not (misbehaves == "deaf" and terms == 1):
            server.stop(None)
            sys.exit(0)

    signal.signal(signal.SIGTERM, on_term)
    listeners = _LISTENERS[name]
    server, bound = serve(Canned(), *(os.environ[variable] for variable in listeners.values()))
    write_ready_file(Path(os.environ["TRACE_READY_FILE"]), dict(zip(listeners, bound, strict=True)))
    while True:
        signal.pause()
