#!/usr/bin/env bash
# Everything that only a CUDA GPU can show, in one command that ends in time:
#
#     bash scripts/gpu_report.sh FOLDER [--cifar FOLDER_OR_ARCHIVE] [--seconds 540]
#
# See scripts/gpu_report/__main__.py. PYTHON names the interpreter (default: python3).
PYTHONPATH=$(cd "$(dirname "$0")/.." && pwd) exec "${PYTHON:-python3}" -m scripts.gpu_report "$@"
