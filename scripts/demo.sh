#!/usr/bin/env bash
# Train a network without and with SimAM on real images (handwritten digits), and compare them.
#   bash scripts/demo.sh          at least 97 % top-1
#   bash scripts/demo.sh --quick  one epoch each, to see that everything works
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
epochs=15
case "${1-}" in
    "") ;;
    --quick) epochs=1 ;;
    *) echo "error: demo.sh takes --quick or nothing, not $1" >&2; exit 2 ;;
esac
ensure_venv demo

data=.demo/digits
[ -d $data ] || "$python" scripts/make_digits.py $data
runs=.demo/runs/$(date +%Y%m%d-%H%M%S)
# crops that keep the digit, and no flip, which makes no digit of most
command=("$python" main_imagenet.py $data -a resnet18 --image-size 32 -b 64 --ckpt "$runs"
    --crop-scale 0.6 --hflip 0 --lr 0.02 --cos-lr --warmup-epochs 2 --epochs $epochs --seed 1)
simam=(--attention-type simam --attention-param 0.1 --name simam)
"${command[@]}" --name none
echo
"${command[@]}" "${simam[@]}"

echo
echo "Evaluating the best checkpoint with SimAM:"
"${command[@]}" "${simam[@]}" -e --resume "$runs/simam/model_best.pth.tar"

echo
"$python" scripts/compare.py "$runs/none" "$runs/simam"
echo "One seed each: the difference says nothing of SimAM, other seeds differ as much."
echo
"$python" scripts/plot_curves.py "$runs/none" "$runs/simam" -o "$runs/curves.png"
echo "run folders $runs"
echo "TensorBoard $python -m tensorboard.main --host 127.0.0.1 --logdir $runs"
