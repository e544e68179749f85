"""The wrapper's settings: TRACE_* of the environment, or the table `wrapper` of a TOML file. Read once, at start."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from kernel.artifacts import check_store_url
from kernel.setting_rules import (
    EXAMPLE_DIGESTS,
    check_digests,
    check_dispatcher,
    check_filled,
    check_listen_address,
    check_listener,
    check_readable,
    check_readable_authority,
    check_token_file,
)
from kernel.settings import Example, Range, Rule, require
from kernel.sqs import STREAM, check_wakeups
from wrapper.replay_files import check_roots


class SandboxChoice(StrEnum):
    """How `python` operators are shut in. `plain` is the explicit opt-out: their code has all rights of the worker."""

    BUBBLEWRAP = "bubblewrap"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class WrapperConfig:
    """What a worker is told. Durations are in seconds."""

    dispatcher_address: Annotated[str, Example("dispatcher.example:7402")]
    """The internal listener of the dispatcher, `host:port`; of several ones either the name that stands for all of them
    or a list of IP addresses, separated by commas. They are used in turn."""
    worker_token_file: Annotated[Path, Rule(check_token_file), Example("/etc/trace/worker.token")]
    """Proves to the dispatcher that this is a worker; mode 0600."""
    artifacts: Annotated[str, Rule(check_store_url), Example("s3://example-artifacts/trace?region=eu-central-1")]
    """The artifact store, as the dispatcher has it."""
    user_token_sha256: Annotated[tuple[str, ...], Rule(check_digests), EXAMPLE_DIGESTS]
    """Who may ask this worker for its status: SHA-256 of the users' token; of two while it is being exchanged."""
    worker_id: Annotated[str, Rule(check_filled), Example("worker-1")]
    """The name of this worker, which no other one has at the same time."""
    work_dir: Annotated[Path, Example("/var/lib/trace/wrapper")]
    """Scratch: wiped at every start, never shared by two workers."""
    dispatcher_authority: Annotated[
        Path | None, Rule(check_readable_authority), Example("/etc/trace/authority.pem")
    ] = None
    """Speak TLS with the dispatcher, and check its certificate by the authorities of this PEM file; `public` for the
    public ones. Without it the dispatcher must be on this machine."""
    dispatcher_name: str = ""
    """The name in the dispatchers' certificates, where that is not the one that is called: with a list of addresses."""
    wrapper_listen: Annotated[str, Rule(check_listen_address), Example("0.0.0.0:7404")] = "127.0.0.1:0"
    """Where WrapperService is served, to users; port 0 for any. Other than loopback only with TLS."""
    tls_certificate: Annotated[Path | None, Rule(check_readable), Example("/etc/trace/wrapper.pem")] = None
    """PEM file of this listener's certificate, with what leads from it to the authority."""
    tls_key: Annotated[Path | None, Rule(check_readable), Example("/etc/trace/wrapper.key")] = None
    """PEM file of the certificate's key."""
    queues: Annotated[tuple[str, ...], Rule(check_filled)] = ("default",)
    """The queues that this worker takes tasks of."""
    wakeups: Annotated[str, Rule(check_wakeups), Example("sqs://trace?region=eu-central-1")] = STREAM
    """By what this worker is woken besides the stream, which it listens to in any case; as the dispatcher has it."""
    capacity: Annotated[int, Range(1, 1000)] = 8
    """Operators' processes that work at once, each on one unit at a time. Twice as many units are claimed at least, and
    more where units are short: as many as ended within the last half second."""
    sandbox: SandboxChoice = SandboxChoice.BUBBLEWRAP
    """How the code of `python` operators is shut in; `plain` gives it all rights of this worker."""
    replay_roots: tuple[Path, ...] = ()
    """Folders below which `replay` may read files in place, for whoever may deploy; by default none."""
    lease_seconds: Annotated[float, Range(1, 3600)] = 30.0
    """How long a lost worker's tasks stay away from others. Leases are extended at a third of it."""
    ready_file: Path | None = None
    """Written once this worker serves: {"wrapper": address}."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged, to standard error, a JSON object a line."""
    drain_seconds: Annotated[float, Range(0)] = 20.0
    """After SIGTERM, how long work in hand may take to end; what has not is handed back."""
    cancel_grace_seconds: Annotated[float, Range(0)] = 10.0
    """How long an operator that was told to stop may take before its process is ended."""
    idle_process_seconds: Annotated[float, Range(0)] = 300.0
    """How long a process without work is kept."""
    max_output_bytes: Annotated[int, Range(0)] = 8 << 30
    """Of one output of one task, as it arrives."""
    operator_memory_bytes: Annotated[int, Range(0)] = 0
    """What an operator's code may allocate where its job does not say; 0 for no limit."""
    log_lines: Annotated[int, Range(0)] = 10_000
    """Operators' log lines that are kept."""

    def __post_init__(self) -> None:
        require(
            lambda: check_dispatcher(self.dispatcher_address, self.dispatcher_authority, self.dispatcher_name),
            lambda: check_listener("wrapper_listen", self.wrapper_listen, self.tls_certificate, self.tls_key),
            lambda: check_roots(self.replay_roots, token_file=self.worker_token_file, work_dir=self.work_dir),
        )
