"""What a cell may still ask of the kernel once it is ready, however it was started: no process, namespace or socket."""

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.system_calls import MACHINES
from queryd.engine import calls
from queryd.engine.messages import CellLimits
from queryd.engine.sandbox import Sandbox, bubblewrap, forked, plain
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.forks import UNFILTERED, said_by, usable
from tests.queryd.harness import QuerydProcess

_LIMITS = CellLimits(memory_bytes=512 << 20, threads=2, scratch_bytes=64 << 20)
_SHUT_IN = pytest.mark.needs_namespaces
_KNOWN = MACHINES[platform.machine()].calls
_NEW_USER, _NEW_NETWORK, _THREAD, _CHILD_SIGNAL = 0x10000000, 0x40000000, 0x10000, 17

_ASKS = """
import ctypes, errno, threading
libc = ctypes.CDLL(None, use_errno=True)

def asked(number, *arguments):
    words = [ctypes.c_long(word) for word in (number, *arguments, 0, 0, 0, 0, 0, 0)[:7]]
    return "answered" if libc.syscall(*words) >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def test_every_call_of_the_list_is_refused(sandbox: Sandbox, cells: Path) -> None:
    wanted = {name: _KNOWN[name] for name in calls._POLICY.refused & _KNOWN.keys()}
    code = f"{_ASKS}\nprint({{name: asked(number) for name, number in {wanted!r}.items()}})"
    assert said_by(sandbox, cells, code) == str(dict.fromkeys(wanted, "EPERM"))


def test_the_list_names_calls_that_there_are() -> None:
    assert calls._POLICY.refused <= MACHINES["x86_64"].calls.keys()


@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("clone", [_CHILD_SIGNAL], "EPERM"),
        ("clone", [_NEW_USER | _CHILD_SIGNAL], "EPERM"),
        ("clone", [_NEW_NETWORK | _THREAD], "EPERM"),
        ("clone3", [], "ENOSYS"),
    ],
)
def test_it_makes_no_process_and_no_namespace(
    sandbox: Sandbox, cells: Path, call: str, arguments: list[int], answer: str
) -> None:
    code = f"{_ASKS}\nprint(asked({_KNOWN[call]}, *{arguments!r}))"
    assert said_by(sandbox, cells, code) == answer


def test_it_opens_no_socket_of_any_family(sandbox: Sandbox, cells: Path) -> None:
    code = f"{_ASKS}\nprint({{asked({_KNOWN['socket']}, family, kind) for family in range(50) for kind in (1, 2, 3)}})"
    assert said_by(sandbox, cells, code) == "{'EAFNOSUPPORT'}"


def test_calls_that_came_later_are_as_if_not_there(sandbox: Sandbox, cells: Path) -> None:
    code = f"{_ASKS}\nprint({{asked(number) for number in range(450, 600)}})"
    assert said_by(sandbox, cells, code) == "{'ENOSYS'}"


_STARTED_BEFORE = f"""
{_ASKS}
go_on, answers = threading.Event(), []
def wait():
    go_on.wait()
    answers.append(asked({_KNOWN["unshare"]}, {_NEW_USER}))
waiting = threading.Thread(target=wait, daemon=True)
waiting.start()
import builtins
builtins.early = (go_on, answers, waiting)
"""


@pytest.mark.parametrize("make", [pytest.param(bubblewrap, marks=_SHUT_IN), plain])
def test_threads_that_it_had_before_are_refused_too(
    cells: Path, make: Callable[[Path | None, CellLimits], Sandbox]
) -> None:
    code = "go_on, answers, waiting = early; go_on.set(); waiting.join(); print(answers)"
    assert said_by(usable(make(None, _LIMITS), cells), cells, code, _STARTED_BEFORE) == "['EPERM']"


_OF_A_CHILD = f"""
{_ASKS}
import os
if os.fork() == 0:  # who has several threads may not
    print(asked({_KNOWN["unshare"]}, {_NEW_USER}), flush=True)
    os._exit(0)
os.wait()
"""


@_SHUT_IN
def test_without_the_filter_it_would_make_a_user_namespace(cells: Path) -> None:
    """So the filter is what keeps it from that."""
    assert said_by(usable(forked(None, _LIMITS), cells), cells, _OF_A_CHILD, UNFILTERED) == "answered"


_SPILLS = """
import os
connection.execute("set memory_limit = '64MB'")
groups = "select count(*) as c from range(1_000_000) t(i) group by md5(i::varchar)"
print(connection.execute(f"select sum(c) from ({groups})").fetchall(), os.path.exists("spill"))
"""


def test_a_query_with_threads_that_spills_is_answered(sandbox: Sandbox, cells: Path) -> None:
    """What queries need is left to it."""
    assert said_by(sandbox, cells, _SPILLS) == "[(1000000,)] True"


_OF_ANOTHER_MACHINE = """
import platform, sys
machine, platform.machine = platform.machine, lambda: "riscv64"
import kernel.seccomp
platform.machine = machine
from queryd.main import main
sys.exit(main())
"""


def test_queryd_says_where_there_can_be_no_filter(tmp_path: Path) -> None:
    datasets = FakeDatasets(tmp_path / "artifacts")
    program = ("-c", _OF_ANOTHER_MACHINE)
    with QuerydProcess(tmp_path, datasets, program, query_warm_cells="1") as queryd, queryd.client().channel:
        assert "queries run without a filter of system calls" in queryd.log.read_text()
        assert "riscv64 are not known here" in queryd.log.read_text()
