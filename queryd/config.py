"""queryd's configuration. Each field is the TRACE_ variable of its name, or a line of the file's [queryd]."""

from dataclasses import dataclass
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

_MEBIBYTE = 1 << 20
# Python, Arrow and an idle engine take about 60 MiB of it.
_LEAST_MEMORY = 256 * _MEBIBYTE


@dataclass(frozen=True, slots=True)
class QuerydConfig:
    """Sizes in bytes, times in seconds. A ValueError says what is wrong."""

    dispatcher_address: Annotated[str, Example("dispatcher.example:7401")]
    """The control listener of the dispatcher, `host:port`; of several ones either the name that stands for all of them
    or a list of IP addresses, separated by commas. They are used in turn."""
    queryd_token_file: Annotated[Path, Rule(check_token_file), Example("/etc/trace/queryd.token")]
    """Proves to the dispatcher that this is a queryd; mode 0600."""
    user_token_sha256: Annotated[tuple[str, ...], Rule(check_digests), EXAMPLE_DIGESTS]
    """SHA-256 of the token that users show; of the old and the new one while it is being exchanged."""
    artifacts: Annotated[str, Rule(check_store_url), Example("s3://example-artifacts/trace?region=eu-central-1")]
    """The artifact store, as the dispatcher has it; reading is enough."""
    dispatcher_authority: Annotated[
        Path | None, Rule(check_readable_authority), Example("/etc/trace/authority.pem")
    ] = None
    """Speak TLS with the dispatcher, and check its certificate by the authorities of this PEM file; `public` for the
    public ones. Without it the dispatcher must be on this machine."""
    dispatcher_name: str = ""
    """The name in the dispatchers' certificates, where that is not the one that is called: with a list of addresses."""
    query_listen: Annotated[str, Rule(check_listen_address), Example("0.0.0.0:7403")] = "127.0.0.1:7403"
    """Where QueryService is served; port 0 for any. Other than loopback only with TLS."""
    tls_certificate: Annotated[Path | None, Rule(check_readable), Example("/etc/trace/queryd.pem")] = None
    """PEM file of this listener's certificate, with what leads from it to the authority."""
    tls_key: Annotated[Path | None, Rule(check_readable), Example("/etc/trace/queryd.key")] = None
    """PEM file of the certificate's key."""
    ready_file: Path | None = None
    """Written once queries are served: {"query": address}."""
    queryd_name: Annotated[str, Rule(check_filled)] = "local"
    """How this process names itself to the dispatcher; its pins carry it."""
    query_slots: Annotated[int, Range(1)] = 8
    """Queries that run at the same time. With those that have ended and are still being cleared away, process and
    folder, they may be twice as many; then further ones wait. As many again may wait for watermarks beside them."""
    query_waiting: Annotated[int, Range(0)] = 32
    """Queries that wait for a place among them, in the order of coming; further ones are told to come again."""
    query_warm_cells: Annotated[int, Range(1)] = 3
    """Processes kept ready for the next queries."""
    query_memory_bytes: Annotated[int, Range(_LEAST_MEMORY)] = 1024 * _MEBIBYTE
    """What one query may allocate."""
    query_threads: Annotated[int, Range(1)] = 2
    """Threads of one query."""
    query_scratch_bytes: Annotated[int, Range(1)] = 4096 * _MEBIBYTE
    """What one query may spill to disk."""
    query_cache_bytes: Annotated[int, Range(1)] = 8192 * _MEBIBYTE
    """Copies kept of files whose store is not on this machine's disk, together."""
    query_copied_bytes: Annotated[int, Range(0)] = 8 * _MEBIBYTE
    """Files of such a store that are at most so large are copied whole; of larger ones only the ranges are read that a
    query needs, each time. Where a query's copies would not fit together, all of its files are read so."""
    query_work_dir: Path | None = None
    """Where queries spill and copies are kept: a folder on a disk with room for both. Default: the system's folder for
    temporary files."""
    query_max_rows: Annotated[int, Range(1)] = 100_000_000
    """Rows that one query may answer."""
    query_max_bytes: Annotated[int, Range(1)] = 65_536 * _MEBIBYTE
    """Bytes of Arrow that one query may answer."""
    query_lease_seconds: Annotated[int, Range(3, 86_400)] = 60
    """How long a query's pin outlives this process; it is renewed at a third of it."""
    query_sandbox: Literal["auto", "bubblewrap", "plain"] = "auto"
    """auto: bubblewrap, and a plain process with a warning where that does not work."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged, to standard error, a JSON object a line."""
    drain_seconds: Annotated[float, Range(0)] = 10.0
    """After SIGTERM, how long running queries may take to end."""

    def __post_init__(self) -> None:
        require(
            lambda: check_dispatcher(self.dispatcher_address, self.dispatcher_authority, self.dispatcher_name),
            lambda: check_listener("query_listen", self.query_listen, self.tls_certificate, self.tls_key),
        )
