"""The ready file: how a program tells whoever started it that it serves, and at which addresses."""

import json
import os
from collections.abc import Mapping
from pathlib import Path


def write_ready_file(path: Path | None, addresses: Mapping[str, str]) -> None:
    """Write the addresses as a JSON object. It appears whole: that it exists means ready. None: nobody asked."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(dict(addresses), sort_keys=True) + "\n", encoding="utf-8")
    unfinished.replace(path)
