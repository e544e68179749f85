"""What a program asks its artifact store before it serves."""

from kernel.artifacts.store import ArtifactStore, is_unavailable
from kernel.errors import TraceError
from kernel.telemetry import get_logger

_log = get_logger("kernel.artifacts")


def require_usable(store: ArtifactStore, *, writable: bool) -> None:
    """TraceError where the store refuses this program, with what a person has to change.

    A store that does not answer is only noted: programs start while it is away, and go on once it is back.
    """
    try:
        store.check(writable=writable)
    except TraceError as error:
        if not is_unavailable(error):
            raise
        _log.warning("the artifact store does not answer yet", error=str(error))
