#!/usr/bin/env bash
# Everything that only a CUDA GPU can show, in under 8 minutes:
#
#     bash scripts/gpu_report.sh FOLDER
#
# writes gpu_tests.txt, bench_simam.txt, bench_simam.json, bench_train.txt and bench_train.json into
# FOLDER. It needs torch, torchvision and triton, installs nothing and uses no network. The tests
# need pytest; without it the benchmark's own check against float64 remains.
# PYTHON names the interpreter (default: python3). Exit status: 0 when all passed, 1 when something
# failed, 2 when it could not start.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

if [ $# -ne 1 ]; then
    echo "usage: bash scripts/gpu_report.sh FOLDER" >&2
    exit 2
fi
out=$1

"$PYTHON" - <<'EOF' || exit 2
import importlib.util
import sys

missing = [name for name in ("torch", "torchvision", "triton") if not importlib.util.find_spec(name)]
if missing:
    sys.exit(f"gpu_report: {', '.join(missing)} not installed for {sys.executable}")
import torch

if not torch.cuda.is_available():
    sys.exit(f"gpu_report: torch {torch.__version__} sees no CUDA device; run this on a machine with a GPU")
print(f"gpu_report: {torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
EOF

mkdir -p "$out" || exit 2
status=0
if "$PYTHON" -c "import pytest" 2>/dev/null; then
    timeout 150 "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests 2>&1 |
        tee "$out/gpu_tests.txt" || status=1
else
    echo "no pytest: the gpu-marked tests were not run" | tee "$out/gpu_tests.txt"
fi
timeout 100 "$PYTHON" scripts/bench_train.py resnet50 --device cuda --amp bf16 --steps 5 --rounds 5 \
    --json "$out/bench_train.json" 2>&1 | tee "$out/bench_train.txt" || status=1
timeout 220 "$PYTHON" scripts/bench_simam.py --device cuda --json "$out/bench_simam.json" 2>&1 |
    tee "$out/bench_simam.txt" || status=1
exit $status
