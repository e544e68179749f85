"""What the wrapper asks of a sandbox: the command line that starts an operator's process, shut in.

A sandbox only words the command; starting, watching and ending the process is the same for all (`operator_processes`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

SOCKET_VARIABLE = "TRACE_OPERATOR_SOCKET"
ENTRYPOINT_VARIABLE = "TRACE_OPERATOR_ENTRYPOINT"


class SandboxUnavailable(Exception):
    """This machine cannot shut operators in; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """An operator's process to start. Folders are the host's paths, by the names that the document gives them."""

    socket: Path
    built_in: str = ""
    """`module:name` of a built-in operator, which imports nothing of `folders`. Empty where the code is among them."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """What the process may read besides its interpreter: unpacked bundles, and a file in place."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start it."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    """All of it: nothing is inherited."""
    local_paths: Mapping[str, str]
    """`Program.folders` as the process sees them."""
    descriptors: tuple[int, ...] = ()
    """Open descriptors that the command line names; whoever starts the process passes them on, and closes its own."""


class Sandbox(Protocol):
    """Words the command that starts an operator's process."""

    @property
    def confines(self) -> bool:
        """Whether the process is kept from the host at all."""
        ...

    def launch(self, program: Program) -> Launch:
        """The command. Raises SandboxUnavailable."""
        ...
