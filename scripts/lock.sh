#!/usr/bin/env bash
# Writes requirements.lock (what mindgen runs on) and requirements-dev.lock (with the test oracles) afresh from
# pyproject.toml and constraints.txt. Needs pip-tools.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    pip-compile --quiet --strip-extras --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links "$@" \
        pyproject.toml
}

compile --extra dev --constraint constraints.txt --output-file requirements-dev.lock
# Whichever build of torch was found here, its version is what counts.
sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements-dev.lock
compile --constraint requirements-dev.lock --output-file requirements.lock
