"""Files of this machine that `replay` reads in place: those below the folders that the worker's owner lists.

A document comes from anyone who may deploy, and a built-in operator has the worker's rights: without this bound, an
absolute path would read the worker's own token. Both sides are compared as the kernel finds them, so that neither `..`
nor a symbolic link leads out of a folder. The process is given what the link led to, not the link. Who may write below
a listed folder can still exchange a file for a link in between; their rights are the owner's to give.
"""

import os
from dataclasses import dataclass
from pathlib import Path


class FileRefused(Exception):
    """A file is not to be read in place; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ReplayFiles:
    """`roots` are absolute, without symbolic links (`Path.resolve`)."""

    roots: tuple[Path, ...] = ()

    def find(self, path: str) -> Path:
        """The file that an absolute path leads to. FileRefused does not tell whether one outside exists."""
        try:
            # First without asking for existence, which is not to be told of what lies outside. That answer may still
            # hold links where some of them run in a circle; the second has none.
            self._check_within(path, Path(os.path.realpath(path)))
            found = Path(os.path.realpath(path, strict=True))
            self._check_within(path, found)
        except (OSError, ValueError) as error:  # no such file; a zero byte
            raise FileRefused(f"there is no file `{path}` on this worker: {error}") from error
        if not found.is_file():
            raise FileRefused(f"`{path}` is no file on this worker")
        return found

    def _check_within(self, path: str, found: Path) -> None:
        if any(found.is_relative_to(root) for root in self.roots):
            return
        if self.roots:
            roots = ", ".join(map(str, self.roots))
            raise FileRefused(
                f"`path: {path}` leads out of the folders that this worker replays from ({roots}); {_REMEDY}"
            )
        raise FileRefused(f"`path: {path}` is absolute, and this worker replays no files in place; {_REMEDY}")


_REMEDY = (
    "name the file relative to the document, so that it travels with the deploy, "
    "or have the worker's owner list its folder in TRACE_REPLAY_ROOTS"
)


def check_roots(roots: tuple[Path, ...], *, token_file: Path, work_dir: Path) -> None:
    """Raises ValueError for a root that cannot be used, or through which a document would reach the worker itself."""
    for root in roots:
        if not root.is_absolute() or not root.is_dir():
            raise ValueError(f"TRACE_REPLAY_ROOTS: {root} is no folder; write absolute paths of folders")
        resolved = root.resolve()
        if token_file.resolve().is_relative_to(resolved):
            raise ValueError(f"TRACE_REPLAY_ROOTS: {root} holds the worker's token, {token_file}: {_NARROWER}")
        scratch = work_dir.resolve()
        if scratch.is_relative_to(resolved) or resolved.is_relative_to(scratch):
            raise ValueError(f"TRACE_REPLAY_ROOTS: {root} and the worker's TRACE_WORK_DIR overlap: {_NARROWER}")


_NARROWER = "list a folder of data only"
