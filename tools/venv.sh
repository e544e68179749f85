#!/bin/sh
# `make venv`: the virtual environment .venv, with the packages of requirements/dev.txt by hash, and this tree installed
# into it for editing. Says nothing and takes milliseconds when it is up to date: .venv/.installed keeps what was installed.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/.venv

# Ctrl-C ends what runs, with all that it started. What installs is in a session of its own (setsid): it is asked to end
# by us, once, and has no traceback for it.
child=
interrupted() {
    trap '' INT TERM HUP
    [ -z "$child" ] || kill -TERM "-$child" 2> /dev/null || kill -TERM "$child" 2> /dev/null || true
    wait
    echo "make venv: interrupted; the next run makes whole what is unfinished" >&2
    exit 130
}
trap interrupted INT TERM HUP
interruptibly() {
    setsid "$@" &
    child=$!
    status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

refuse() { printf 'make venv: %s\n' "$@" >&2; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

choose_python() {
    found=
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        new_enough "$candidate" || continue
        found=$candidate
        if can_make_venv "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [ -n "$found" ]; then
        refuse "$found has no ensurepip, so it cannot make a virtual environment." \
            "On Debian and Ubuntu it is a package of its own: apt-get install python3-venv (as root). Then try again."
    fi
    refuse "Python 3.11 or newer is needed, found: ${PYTHON:-$(python3 --version 2>&1 || true)}." \
        "On Debian 12 and Ubuntu 24.04: apt-get install python3 python3-venv (as root)." \
        "If it is installed under another name: make venv PYTHON=/path/to/python3.11"
}

# A tree that was moved, or a Python that was upgraded away, leaves a .venv behind that cannot work.
usable() { [ -x "$venv/bin/python" ] && new_enough "$venv/bin/python" && grep -qs "^place $venv\$" "$venv/.installed"; }

packages=$(cat requirements/dev.txt | cksum)
project=$(sed -n '1,/^\[tool\.ruff/p' pyproject.toml | cksum)
installed="place $venv
packages $packages
project $project"

if usable && [ "$(cat "$venv/.installed")" = "$installed" ]; then
    exit 0
fi
if ! usable; then
    python=$(choose_python)
    echo "Making .venv with $("$python" --version)"
    interruptibly "$python" -m venv --clear "$venv"
    echo "place $venv" > "$venv/.installed"
fi
# While pip writes there is no .installed, so that after Ctrl-C (or a loss of power) .venv is made anew: the next pip would
# take a half-written package for an installed one. Where pip itself gives up it has written nothing.
before=$(cat "$venv/.installed")
rm "$venv/.installed"
pip() {
    interruptibly "$venv/bin/python" -m pip --disable-pip-version-check --no-input --quiet "$@" && return
    printf '%s\n' "$before" > "$venv/.installed"
    exit 1
}
if ! printf '%s\n' "$before" | grep -qs "^packages $packages\$"; then
    echo "Installing $(grep -c '==' requirements/dev.txt) pinned packages into .venv (about a minute the first time)"
    pip install --require-hashes --requirement requirements/dev.txt
fi
pip install --no-deps --no-build-isolation --editable .
printf '%s\n' "$installed" > "$venv/.installed"
