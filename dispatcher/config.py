"""What a dispatcher is told when it starts: `[dispatcher]` of a TOML file, then the environment."""

from dataclasses import dataclass
from pathlib import Path

from kernel.config import SecretStr


@dataclass(frozen=True, slots=True)
class DispatcherConfig:
    """Fields are the variables TRACE_<FIELD>. Times are in seconds."""

    database_url: SecretStr
    artifacts: str
    user_token_sha256: str
    worker_token_sha256: str
    queryd_token_sha256: str
    control_listen: str = "127.0.0.1:7401"
    internal_listen: str = "127.0.0.1:7402"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    ready_file: Path | None = None
    log_level: str = "info"
    drain_seconds: float = 5.0
    unanswered_wakeup_seconds: float = 10.0
    allow_unsafe_durability: bool = False
