"""Text that fits: the contract limits strings by their bytes of UTF-8."""

_MARK = "..."


def clip(text: str, limit: int) -> str:
    """The text as valid UTF-8 in at most `limit` bytes; a cut is marked."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - len(_MARK)].decode(errors="ignore") + _MARK


def clip_middle(text: str, limit: int) -> str:
    """The same, keeping the beginning and, for the most part, the end: of a traceback the end matters more."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    mark = f"\n... {len(data) - limit:,} bytes and more left out ...\n"
    room = limit - len(mark)
    head = data[: room // 4].decode(errors="ignore")
    return head + mark + data[len(data) - (room - room // 4) :].decode(errors="ignore")
