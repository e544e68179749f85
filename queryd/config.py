"""queryd's configuration. Each field is the TRACE_ variable of its name, or a line of the file's [queryd]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kernel.artifacts import check_store_url

_MEBIBYTE = 1 << 20
# Python, Arrow and an idle engine take about 60 MiB of it.
_LEAST_MEMORY = 256 * _MEBIBYTE


@dataclass(frozen=True, slots=True)
class QuerydConfig:
    """Sizes in bytes, times in seconds. A ValueError says what is wrong."""

    dispatcher_address: str
    """The dispatcher's control listener, `host:port`; several separated by commas."""
    queryd_token_file: Path
    """Proves to the dispatcher that this is a queryd."""
    user_token_sha256: str
    """Digest of the token that users show."""
    artifacts: str
    """The artifact store, `file:///folder` or `s3://bucket/prefix?endpoint=...&region=...`."""
    query_listen: str = "127.0.0.1:7403"
    """Where QueryService is served; port 0 for any."""
    ready_file: Path | None = None
    """Written once queries are served: {"query": address}."""
    queryd_name: str = "local"
    """How this process names itself to the dispatcher; its pins carry it."""
    query_slots: int = 8
    """Queries that run at the same time; further ones are told to come again."""
    query_warm_cells: int = 3
    """Processes kept ready for the next queries."""
    query_memory_bytes: int = 1024 * _MEBIBYTE
    """What one query may allocate."""
    query_threads: int = 2
    """Threads of one query."""
    query_scratch_bytes: int = 4096 * _MEBIBYTE
    """What one query may spill to disk."""
    query_cache_bytes: int = 8192 * _MEBIBYTE
    """Copies kept of files whose store is not on this machine's disk, together. A query reads no more than that."""
    query_work_dir: Path | None = None
    """Where queries spill and copies are kept: a folder on a disk with room for both. Default: the system's folder for
    temporary files."""
    query_max_rows: int = 100_000_000
    """Rows that one query may answer."""
    query_lease_seconds: int = 60
    """How long a query's pin outlives this process; it is renewed at a third of it."""
    query_sandbox: Literal["auto", "bubblewrap", "plain"] = "auto"
    """auto: bubblewrap, and a plain process with a warning where that does not work."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_seconds: float = 10.0
    """After SIGTERM, how long running queries may take to end."""

    def __post_init__(self) -> None:
        positive = (
            *("query_slots", "query_warm_cells", "query_threads"),
            *("query_scratch_bytes", "query_cache_bytes", "query_max_rows"),
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"TRACE_{name.upper()}: must be at least 1")
        if not 3 <= self.query_lease_seconds <= 86_400:
            raise ValueError("TRACE_QUERY_LEASE_SECONDS: must be from 3 to 86400")
        if self.query_memory_bytes < _LEAST_MEMORY:
            raise ValueError(f"TRACE_QUERY_MEMORY_BYTES: must be at least {_LEAST_MEMORY}")
        check_store_url(self.artifacts)
