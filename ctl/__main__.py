"""The entry point of `tracectl`, also of `python -m ctl`. The command line itself, slow to import, is `ctl.main`."""

import signal
import sys


def main() -> None:
    # While imports go on there is nothing to end in order: Ctrl-C ends the process as the kernel does, without a word.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ctl.outputs import use_standard_streams, written

    use_standard_streams()
    from ctl.errors import CtlError
    from ctl.interrupts import interruptible
    from ctl.main import app
    from ctl.render import console

    try:
        with interruptible():
            written(app)
    except CtlError as error:
        console.print_error(error)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
