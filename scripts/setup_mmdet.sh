#!/usr/bin/env bash
# A virtual environment with mmdetection 3 and versions that work together today.
#
#   bash scripts/setup_mmdet.sh [FOLDER]      FOLDER: .venv-mmdet unless given
#
# mmcv has no wheel for this torch and is built from its source release, which takes a compiler
# and about half an hour on two cores; a folder with a wheel, named in PIP_FIND_LINKS, saves that.
# With nvcc on the PATH its operators are built for GPUs too, also where there is none, as on a
# cluster's login node: then for those of TORCH_CUDA_ARCH_LIST, A100 to H100 unless given. A machine
# with GPUs and without nvcc is refused.
# safetensors is for this repository's scripts/convert_checkpoint.py, pytest for tests/detection,
# psutil for mmdetection's benchmark.
# PYTHON: the interpreter to use, python3 unless given.
set -euo pipefail

gpu=$(nvidia-smi -L 2>/dev/null || true)
if command -v nvcc >/dev/null; then
    export FORCE_CUDA=1
    [ "$gpu" ] || export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-8.0;8.6;8.9;9.0+PTX}
elif [ "$gpu" ]; then
    echo "error: a GPU but no nvcc, which builds mmcv's operators for it: put that of torch's CUDA" \
        "version on the PATH (module load cuda, or a -devel image)" >&2
    exit 2
fi

folder=${1:-.venv-mmdet}
"${PYTHON:-python3}" -m venv "$folder"
python="$folder/bin/python"

# mmcv's build and mmengine's configs import pkg_resources, which setuptools 81 no longer has
"$python" -m pip install --quiet "torch==2.13.0" "numpy==2.4.*" "setuptools<81" wheel ninja
# no cache: pip would take what it built before, maybe for the CPU alone
"$python" -m pip install --quiet --no-cache-dir --no-build-isolation "mmcv==2.1.0"
"$python" -m pip install --quiet "mmengine==0.10.7" "mmdet==3.3.0" psutil safetensors pytest

"$python" -W ignore -c '
import mmcv.ops, mmdet, mmengine, numpy, torch
for module in (torch, numpy, mmcv, mmengine, mmdet):
    print(module.__name__, module.__version__)
built = mmcv.ops.get_compiling_cuda_version()
on_gpu = built != "not available"
print("operators of mmcv: for", f"GPUs with CUDA {built}, and CPUs" if on_gpu else
      "the CPU alone; to train on GPUs, run this again with nvcc on the PATH")
device = "cuda" if torch.cuda.is_available() else "cpu"
boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 3], [5, 5, 9, 9.]], device=device)
_, kept = mmcv.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)
assert kept.tolist() == [0, 2], kept
print("an NMS on the", device.upper(), "is right")
'
echo "$folder is ready"
