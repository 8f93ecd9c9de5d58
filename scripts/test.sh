#!/usr/bin/env bash
# Run the tests in .venv, which is made and filled where needed: all but the slow ones, or with
# --all every one, a process per core; with --oldest in .venv-oldest, where the torch is the oldest
# that training needs (7 GB), whose warnings are no errors. Further arguments go to pytest:
#   bash scripts/test.sh [--oldest] [--all] [-k EXPRESSION] [tests/networks/test_simam.py] ...
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
if [ "${1-}" = --oldest ]; then
    # the interpreter of its Triton needs numpy before 2.4
    ensure_venv test .venv-oldest "torch==2.10.*" "torchvision==0.25.*" "numpy<2.4"
    which=(-W default)
    shift
else
    ensure_venv test
    which=()
fi
if [ "${1-}" = --all ]; then
    shift
else
    which+=(-m "not slow")
fi
cores=$(nproc)
# several processes of several threads each would slow PyTorch's training tenfold
export OMP_NUM_THREADS=1
# in the files' own order: pytest-xdist would leave those of few tests, which take longest, to the end
exec "$python" -m pytest -n "$cores" --dist loadfile --no-loadscope-reorder "${which[@]}" "$@"
