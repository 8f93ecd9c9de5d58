#!/usr/bin/env bash
# Train one row of the paper's Table 3 with its recipe, on 4 GPUs:
#
#     DATA=IMAGENET bash scripts/train_imagenet.sh ARCH [ATTENTION] [options of main_imagenet.py]
#
# ARCH: resnet18 resnet34 resnet50 resnet101 resnext50_32x4d mobilenet_v2. ATTENTION: none se cbam
# eca srm simam; simam where it is not given. IMAGENET holds train/<class>/ and val/<class>/.
# PYTHON names the interpreter (default: python3); PYTHON=echo shows the command.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 2
}

[ $# -ge 1 ] || fail "which network? bash scripts/train_imagenet.sh ARCH [ATTENTION] [options]"
arch=$1
shift
case $arch in
    resnet18 | resnet34 | resnet50 | resnet101 | resnext50_32x4d)
        recipe="--epochs 100 --lr 0.1 --wd 1e-4" ;;
    mobilenet_v2) # the paper prints 0.5; its README and the recipe that it cites say 0.05
        recipe="--epochs 150 --lr 0.05 --cos-lr --wd 4e-5" ;;
    *) fail "$arch is not in the paper's Table 3; known: resnet18 resnet34 resnet50 resnet101" \
        "resnext50_32x4d mobilenet_v2" ;;
esac

attention=simam
case ${1-} in
    -* | "") ;;
    *) attention=$1; shift ;;
esac
case $attention in
    simam) attention="simam --attention-param 0.1" ;;
    none | se | cbam | eca | srm) ;;
    *) fail "$attention is not in the paper's Table 3; known: none se cbam eca srm simam" ;;
esac
[ -n "${DATA-}" ] || fail "DATA is not set; DATA=IMAGENET bash scripts/train_imagenet.sh ..."

# shellcheck disable=SC2086 # recipe and attention are several words
exec "${PYTHON:-python3}" "$(dirname "$0")/../main_imagenet.py" "$DATA" -a "$arch" \
    --attention-type $attention --gpu 0,1,2,3 -j 20 -b 256 --momentum 0.9 $recipe "$@"
