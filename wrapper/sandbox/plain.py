"""No sandbox: for built-in operators, which are trusted, and for machines whose owner opted out in so many words."""

import os
import shutil
import sys

from wrapper.sandbox.port import ENTRYPOINT_VARIABLE, SOCKET_VARIABLE, Launch, Program

HOST_MODULE = "tracesdk.host"


class PlainProcess:
    """An ordinary child process with an environment of its own. The kernel ends it with the wrapper."""

    @property
    def confines(self) -> bool:
        return False

    def launch(self, program: Program) -> Launch:
        environment = {
            SOCKET_VARIABLE: str(program.socket),
            ENTRYPOINT_VARIABLE: program.built_in,
            "PATH": os.environ.get("PATH", os.defpath),
        }
        return Launch(
            # -P: neither the working directory nor a script's folder is searched for modules.
            command=(*dies_with_parent(), sys.executable, "-P", "-B", "-m", HOST_MODULE),
            environment=environment,
            local_paths={name: str(path) for name, path in program.folders.items()},
        )


def dies_with_parent() -> tuple[str, ...]:
    """Before a command: the kernel kills it when the thread that started it ends, even by SIGKILL (util-linux)."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
