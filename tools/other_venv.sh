#!/bin/sh
# other_venv.sh NAME: the environment .venv-NAME, with the packages of requirements/NAME.txt by hash and nothing of Trace.
# Says nothing when it is up to date.
set -eu
cd "$(dirname "$0")/.."
packages=requirements/$1.txt
venv=$PWD/.venv-$1
installed="place $venv packages $(cksum < "$packages")"

[ "$(cat "$venv/.installed" 2>/dev/null)" = "$installed" ] && exit 0
echo "Installing $packages into .venv-$1"
.venv/bin/python -m venv --clear "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check --quiet install --require-hashes --requirement "$packages"
echo "$installed" > "$venv/.installed"
