"""`python -m tests.dispatcher.crashing`: the real dispatcher, which dies at the crash points in TEST_CRASH."""

import os

import dispatcher.main
from kernel import crash

if __name__ == "__main__":
    crash.arm(os.environ.get("TEST_CRASH", ""))
    dispatcher.main.main()
