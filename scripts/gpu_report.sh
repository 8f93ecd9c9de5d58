#!/usr/bin/env bash
# Everything that only a CUDA GPU can show, in under 8 minutes:
#
#     bash scripts/gpu_report.sh FOLDER
#
# writes gpu_tests_simam.txt, bench_simam.txt and .json, bench_train.txt and .json, and gpu_tests.txt
# into FOLDER. It needs torch, torchvision and triton, and for the benchmarks safetensors, tensorboard
# and tqdm, installs nothing and uses no network. The tests need pytest; without it the benchmark's
# own check against float64 remains.
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

# step FILE SECONDS COMMAND...: what it prints goes to FILE too; out of time, it keeps its rows
step() {
    local name=$1 limit=$2 code
    shift 2
    timeout --signal=INT --kill-after=5 "$limit" "$@" 2>&1 | tee "$out/$name"
    code=${PIPESTATUS[0]}
    if [ "$code" = 124 ] || [ "$code" = 137 ]; then
        echo "gpu_report: $name was stopped after $limit s; what was finished is there" >&2
    fi
    [ "$code" = 0 ] || status=1
}

pytest=("$PYTHON" -m pytest -v -m gpu -p no:cacheprovider --continue-on-collection-errors)
"$PYTHON" -c "import pytest" 2>/dev/null ||
    pytest=(echo "no pytest: these tests were not run:")

# in the order of what matters, in case the time runs out
step gpu_tests_simam.txt 95 "${pytest[@]}" tests/networks/test_simam.py \
    tests/networks/test_simam_triton.py tests/networks/test_fused_triton.py
step bench_simam.txt 190 "$PYTHON" scripts/bench_simam.py --device cuda \
    --json "$out/bench_simam.json"
# without timm: its share of the memory would not fit beside the others' in 80 GB
step bench_train.txt 110 "$PYTHON" scripts/bench_train.py resnet50 --device cuda --amp bf16 \
    --no-timm --steps 5 --rounds 5 --json "$out/bench_train.json"
step gpu_tests.txt 50 "${pytest[@]}" tests/training/test_metrics.py \
    tests/training/test_engine.py tests/processes/test_dist.py tests/data/test_loader.py \
    tests/data/test_normalise.py
exit $status
