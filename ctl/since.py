"""The moment from which on something is asked for: a time, or how long ago it was."""

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from ctl.errors import CtlError, ExitCode

_AGO = re.compile(r"(?P<count>\d{1,6})(?P<unit>[smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def since(text: str, now: datetime) -> Timestamp | None:
    """None for an empty text. Raises CtlError (usage)."""
    if not text:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            moment = now - timedelta(seconds=int(ago["count"]) * _SECONDS[ago["unit"]])
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise _refused(text) from error
    return _timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC), text)


def _timestamp(moment: datetime, text: str) -> Timestamp:
    if moment.year < 1970:
        raise _refused(text)
    made = Timestamp()
    made.FromDatetime(moment.astimezone(UTC))
    return made


def _refused(text: str) -> CtlError:
    return CtlError(
        f"--since {text!r} is no time since 1970",
        remedy="write it as 30m, 12h or 7d (ago), or as 2026-05-01 or 2026-05-01T12:00:00Z (UTC, unless it says more)",
        exit_code=ExitCode.USAGE,
    )
