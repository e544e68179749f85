"""The wrapper's settings: TRACE_* of the environment, or the table `wrapper` of a TOML file. Read once, at start."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from kernel.artifacts import check_store_url
from kernel.credentials import Role, TokenVerifier
from wrapper.replay_files import check_roots


class SandboxChoice(StrEnum):
    """How `python` operators are shut in. `plain` is the explicit opt-out: their code has all rights of the worker."""

    BUBBLEWRAP = "bubblewrap"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class WrapperConfig:
    """What a worker is told. Durations are in seconds."""

    dispatcher_address: str
    """Of the internal listener; several, separated by commas, are used in turn."""
    worker_token_file: Path
    artifacts: str
    """URL of the artifact store."""
    user_token_sha256: str
    """Who may ask this worker for its status."""
    worker_id: str
    work_dir: Path
    """Scratch: wiped at every start, never shared by two workers."""
    wrapper_listen: str = "127.0.0.1:0"
    queues: tuple[str, ...] = ("default",)
    capacity: int = 8
    """Operators' processes that work at once, each on one unit at a time. Twice as many units are claimed at least, and
    more where units are short: as many as ended within the last half second."""
    sandbox: SandboxChoice = SandboxChoice.BUBBLEWRAP
    replay_roots: tuple[Path, ...] = ()
    """Folders below which `replay` may read files in place, for whoever may deploy; by default none."""
    lease_seconds: float = 30.0
    ready_file: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_seconds: float = 20.0
    """After SIGTERM, how long work in hand may take to end."""
    cancel_grace_seconds: float = 10.0
    """How long an operator that was told to stop may take before its process is ended."""
    idle_process_seconds: float = 300.0
    max_output_bytes: int = 8 << 30
    """Of one output of one task, as it arrives."""
    operator_memory_bytes: int = 0
    """What an operator's code may allocate where its job does not say; 0 for no limit."""
    log_lines: int = 10_000
    """Operators' log lines that are kept."""

    def __post_init__(self) -> None:
        if not 1 <= self.capacity <= 1000:
            raise ValueError("TRACE_CAPACITY: must be from 1 to 1000")
        if not 1 <= self.lease_seconds <= 3600:
            raise ValueError("TRACE_LEASE_SECONDS: must be from 1 to 3600")
        check_store_url(self.artifacts)
        TokenVerifier({Role.USER: self.user_token_sha256})
        if not self.queues:
            raise ValueError("TRACE_QUEUES: names at least one queue")
        check_roots(self.replay_roots, token_file=self.worker_token_file, work_dir=self.work_dir)
        for name in (
            "drain_seconds",
            "cancel_grace_seconds",
            "idle_process_seconds",
            "max_output_bytes",
            "operator_memory_bytes",
            "log_lines",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"TRACE_{name.upper()}: must not be negative")
