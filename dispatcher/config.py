"""What a dispatcher is told when it starts: `[dispatcher]` of a TOML file, then the environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict

from kernel.artifacts import check_store_url
from kernel.config import SecretStr
from kernel.credentials import Role, TokenVerifier
from kernel.setting_rules import EXAMPLE_DIGESTS, check_digests, check_listen_address, check_listener, check_readable
from kernel.settings import Example, Range, Rule, require
from kernel.sqs import STREAM, check_wakeups


def check_database_url(url: SecretStr) -> None:
    """What libpq can read. Its own words could quote the password."""
    try:
        conninfo_to_dict(url.reveal())
    except psycopg.ProgrammingError:
        raise ValueError(
            "write it as postgresql://user:password@host:port/database, or as host=... dbname=..."
        ) from None


@dataclass(frozen=True, slots=True)
class DispatcherConfig:
    """Fields are the variables TRACE_<FIELD>. Times are in seconds."""

    database_url: Annotated[
        SecretStr,
        Rule(check_database_url),
        Example("postgresql://trace:PASSWORD@db.example:5432/trace?sslmode=verify-full"),
    ]
    """The system database, as libpq writes it: a URL, or `host=... dbname=...`."""
    artifacts: Annotated[str, Rule(check_store_url), Example("s3://example-artifacts/trace?region=eu-central-1")]
    """The artifact store, `file:///folder` or `s3://bucket/prefix?endpoint=...&region=...`."""
    user_token_sha256: Annotated[tuple[str, ...], Rule(check_digests), EXAMPLE_DIGESTS]
    """SHA-256 of the token that users show; of the old and the new one while it is being exchanged."""
    worker_token_sha256: Annotated[tuple[str, ...], Rule(check_digests), EXAMPLE_DIGESTS]
    """The same of the workers' token. No two roles share one."""
    queryd_token_sha256: Annotated[tuple[str, ...], Rule(check_digests), EXAMPLE_DIGESTS]
    """The same of queryd's token."""
    control_listen: Annotated[str, Rule(check_listen_address), Example("0.0.0.0:7401")] = "127.0.0.1:7401"
    """Where users and queryd call, `host:port`; port 0 for any. Other than loopback only with TLS."""
    internal_listen: Annotated[str, Rule(check_listen_address), Example("0.0.0.0:7402")] = "127.0.0.1:7402"
    """Where workers call; otherwise as `control_listen`."""
    tls_certificate: Annotated[Path | None, Rule(check_readable), Example("/etc/trace/dispatcher.pem")] = None
    """PEM file of both listeners' certificate, with what leads from it to the authority."""
    tls_key: Annotated[Path | None, Rule(check_readable), Example("/etc/trace/dispatcher.key")] = None
    """PEM file of the certificate's key."""
    wakeups: Annotated[str, Rule(check_wakeups), Example("sqs://trace?region=eu-central-1")] = STREAM
    """By what workers are woken: `stream`, or SQS as `sqs://PREFIX?endpoint=...&region=...`, with an SQS queue
    PREFIX-QUEUE for each queue. Wake-ups that nobody answers are sent again over the stream, whatever this is."""
    ready_file: Path | None = None
    """Written once both listeners serve: {"control": address, "internal": address}."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged, to standard error, a JSON object a line."""
    drain_seconds: Annotated[float, Range(0)] = 5.0
    """After SIGTERM, how long calls under way may take to end."""
    unanswered_wakeup_seconds: Annotated[float, Range(0.1)] = 10.0
    """After this time without a claim a wake-up is sent again."""
    finished_live_seconds: Annotated[float, Range(0)] = 60.0
    """How long a task that has ended stays in the tables of live ones, before it is moved to those of finished ones."""
    finished_days: Annotated[int, Range(0)] = 30
    """How many days finished tasks and their attempts are kept; 0 for ever. Events, files and counts stay."""
    query_record_days: Annotated[int, Range(0)] = 90
    """How many days queries stay on record; 0 for ever."""
    orphan_grace_seconds: Annotated[float, Range(0)] = 86_400.0
    """How long a file that nobody names, left by a lost attempt, stays in the artifact store. A day; far longer than
    any clock is off."""
    orphan_sweep_seconds: Annotated[float, Range(0)] = 21_600.0
    """How often one of the dispatchers looks through the artifact store for such files; 0 for never by itself."""
    rollback_versions: Annotated[int, Range(0)] = 5
    """So many versions of each DAG that were active before the present one can be rolled back to, however old they are:
    nobody takes what they serve."""
    rollback_days: Annotated[float, Range(0)] = 30.0
    """And all that were active within so many days."""
    allow_unsafe_durability: bool = False
    """Accept a database that may forget what it has committed (fsync or synchronous_commit off). For experiments."""

    def __post_init__(self) -> None:
        require(
            lambda: check_listener("control_listen", self.control_listen, self.tls_certificate, self.tls_key),
            lambda: check_listener("internal_listen", self.internal_listen, self.tls_certificate, self.tls_key),
            lambda: TokenVerifier(
                {
                    Role.USER: self.user_token_sha256,
                    Role.WORKER: self.worker_token_sha256,
                    Role.QUERYD: self.queryd_token_sha256,
                }
            ),
        )
