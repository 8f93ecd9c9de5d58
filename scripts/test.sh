#!/usr/bin/env bash
# Run the tests in .venv, which is made and filled where needed: all but the slow ones, or with
# --all every one, a process per core; with --oldest in .venv-oldest, where the torch is the oldest
# that training needs (7 GB). Further arguments go to pytest:
#   bash scripts/test.sh [--oldest] [--all] [-k EXPRESSION] [tests/networks/test_simam.py] ...
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
if [ "${1-}" = --oldest ]; then
    ensure_venv test .venv-oldest "torch==2.10.*" "torchvision==0.25.*"
    shift
else
    ensure_venv test
fi
which=(-m "not slow")
if [ "${1-}" = --all ]; then
    which=()
    shift
fi
cores=$(nproc)
# several processes of several threads each would slow PyTorch's training tenfold
export OMP_NUM_THREADS=1
exec "$python" -m pytest -n "$cores" --dist loadfile "${which[@]}" "$@"
