#!/bin/sh
# `make lock`: resolves pyproject.toml's dependencies into requirements/runtime.txt, requirements/dev.in into dev.txt, and
# those of the other environments, bench.in and extensions.in, into bench.txt and extensions.txt, with the hashes of every
# wheel for every platform and every Python from 3.11 on. Versions already locked stay; UPGRADE=1 takes the newest,
# UPGRADE=name that of one package. The resolver is not part of the lock: it gets an environment for the moment.
set -eu
cd "$(dirname "$0")/.."
resolver=uv==0.13.9

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python -m venv "$folder"
"$folder/bin/python" -m pip --disable-pip-version-check --quiet install "$resolver"

case ${UPGRADE:-} in
    '') upgrade='' ;;
    1) upgrade=--upgrade ;;
    *) upgrade="--upgrade-package $UPGRADE" ;;
esac
lock() {
    # shellcheck disable=SC2086 # `upgrade` is none, one or two words
    "$folder/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --custom-compile-command 'make lock' $upgrade --output-file "requirements/$2" "$1"
}
lock pyproject.toml runtime.txt
lock requirements/dev.in dev.txt
lock requirements/bench.in bench.txt
lock requirements/extensions.in extensions.txt

if grep -nE '://|^-i |--(extra-)?index-url|--find-links' requirements/*.txt; then
    echo "make lock: an address got into a lock (above): a lock names packages and hashes, never a place" >&2
    exit 1
fi
echo "Locked; 'make venv' installs it."
