"""Which artifact store a home has: the one of its first start, for its database names what lies there."""

from ctl.errors import CtlError, ExitCode
from ctl.home import Home, write_atomically
from kernel.artifacts import check_store_url


def store_url(home: Home, asked: str) -> str:
    """The URL for the home's programs; `asked` is what the command line names, empty for the home's own folder.

    Raises CtlError for another store than the home has had, and for what is no URL of a store.
    """
    if asked:
        try:
            check_store_url(asked)
        except ValueError as error:
            raise CtlError(str(error), remedy="correct --artifacts", exit_code=ExitCode.USAGE) from None
    known = _known(home)
    if known and asked and asked != known:
        raise CtlError(
            f"the artifacts of {home.root} are in {known}, and its database names them there",
            remedy="leave out --artifacts, or start on another home: --home DIR",
            exit_code=ExitCode.USAGE,
        )
    return known or asked or home.artifacts.as_uri()


def remember_store(home: Home, url: str) -> None:
    """Once the programs serve with it: a mistyped one is not what the home has had."""
    if not home.store_file.exists():
        write_atomically(home.store_file, url + "\n")


def _known(home: Home) -> str:
    if home.store_file.exists():
        return home.store_file.read_text().strip()
    # A home of a release that had no other store than its folder.
    own = home.artifacts.is_dir() and any(home.artifacts.iterdir())
    return home.artifacts.as_uri() if own else ""
