#!/usr/bin/env bash
# Run the tests in .venv, which is made and filled where needed; arguments go to pytest:
#   bash scripts/test.sh [-m "not slow"] [tests/test_simam.py] ...
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
ensure_venv test
exec "$python" -m pytest "$@"
