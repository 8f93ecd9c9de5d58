#!/usr/bin/env bash
# A virtual environment with mmdetection 3 and versions that work together today.
#
#   bash scripts/setup_mmdet.sh [FOLDER]      FOLDER: .venv-mmdet unless given
#
# mmcv has no wheel for this torch and is built from its source release, which takes a compiler
# and about half an hour on two cores; a folder with a wheel, named in PIP_FIND_LINKS, saves that.
# safetensors is for this repository's scripts/convert_checkpoint.py, pytest for tests/detection.
# PYTHON: the interpreter to use, python3 unless given.
set -euo pipefail

folder=${1:-.venv-mmdet}
"${PYTHON:-python3}" -m venv "$folder"
python="$folder/bin/python"

# mmcv's build and mmengine's configs import pkg_resources, which setuptools 81 no longer has
"$python" -m pip install --quiet "torch==2.13.0" "numpy==2.4.*" "setuptools<81" wheel ninja
"$python" -m pip install --quiet --no-build-isolation "mmcv==2.1.0"
"$python" -m pip install --quiet "mmengine==0.10.7" "mmdet==3.3.0" safetensors pytest

"$python" -W ignore -c '
import mmcv.ops, mmdet, mmengine, numpy, torch
for module in (torch, numpy, mmcv, mmengine, mmdet):
    print(module.__name__, module.__version__)
'
echo "$folder is ready"
