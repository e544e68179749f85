#!/bin/sh
# For `make bench-dispatch`: the environment .venv-bench, with the peers of requirements/bench.txt by hash and nothing of Trace.
# Says nothing when it is up to date.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/.venv-bench
installed="place $venv packages $(cksum < requirements/bench.txt)"

[ "$(cat "$venv/.installed" 2>/dev/null)" = "$installed" ] && exit 0
echo "Installing the peers of requirements/bench.txt into .venv-bench"
.venv/bin/python -m venv --clear "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check --quiet install --require-hashes --requirement requirements/bench.txt
echo "$installed" > "$venv/.installed"
