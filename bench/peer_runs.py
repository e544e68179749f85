"""Runs the scripts of bench/peers, in an environment of their own, on the server that ours runs on."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from bench.stack import Stack

_SCRIPTS = Path(__file__).parent / "peers"
_LIMIT_SECONDS = 120


class PeerFailed(Exception):
    """A peer's script failed, or its environment is not there; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A queue to compare with, and how many tasks it is given."""

    script: str
    tasks: int


def measure(stack: Stack, python: Path, peer: Peer) -> float:
    """Tasks per second. Raises PeerFailed."""
    return peer.tasks / float(run(stack, python, f"{peer.script}_noop", peer.tasks)["seconds"])


def run(stack: Stack, python: Path, script: str, count: int) -> Any:
    """What a script printed, in a database that is made for it and dropped again. Raises PeerFailed."""
    if not python.exists():
        raise PeerFailed(f"{python} is not there: `make bench-dispatch` makes it from requirements/bench.txt")
    with stack.database() as database:
        name = sql.Identifier(f"bench_{script}")
        database.execute(sql.SQL("create database {}").format(name))
        try:
            return json.loads(_printed(stack, python, script, count))
        finally:
            database.execute(sql.SQL("drop database {} with (force)").format(name))


def _printed(stack: Stack, python: Path, script: str, count: int) -> str:
    place = conninfo_to_dict(stack.conninfo(f"bench_{script}"))
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE", "passfile": "PGPASSFILE"}
    environment = os.environ | {variable: str(place[key]) for key, variable in names.items()}
    command = [str(python), str(_SCRIPTS / f"{script}.py"), str(count)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PeerFailed(f"{script} did not end within {_LIMIT_SECONDS} s") from error
    if done.returncode != 0:
        raise PeerFailed(f"{script} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout
