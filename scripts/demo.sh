#!/usr/bin/env bash
# Train a SimAM network on real images (handwritten digits), evaluate its best checkpoint.
#   bash scripts/demo.sh          at least 90 % top-1
#   bash scripts/demo.sh --quick  one epoch, to see that everything works
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
epochs=30
case "${1-}" in
    "") ;;
    --quick) epochs=1 ;;
    *) echo "error: demo.sh takes --quick or nothing, not $1" >&2; exit 2 ;;
esac
ensure_venv demo

data=.demo/digits
[ -d $data ] || "$python" scripts/make_digits.py $data
runs=.demo/runs/$(date +%Y%m%d-%H%M%S)
command=("$python" main_imagenet.py $data -a resnet18 --attention_type simam --attention_param 0.1
    --image-size 32 -b 64 -j 2 --ckpt "$runs")
"${command[@]}" --epochs $epochs --lr 0.02 --cos-lr --warmup-epochs 2 --seed 1
folder=$(echo "$runs"/*)

echo
echo "Evaluating the best checkpoint:"
"${command[@]}" -e --resume "$folder/model_best.pth.tar" | tee "$folder/evaluation.txt"

echo
echo "accuracy    $(tail -n 1 "$folder/evaluation.txt")"
echo "run folder  $folder"
echo "curves      $python -m tensorboard.main --host 127.0.0.1 --logdir $runs"
