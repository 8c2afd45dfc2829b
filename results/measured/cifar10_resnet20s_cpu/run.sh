#!/usr/bin/env bash
# CIFAR-10 on two CPU cores: every method two epochs after the same two dense ones. DATA: a folder that holds CIFAR-10.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=results/measured/cifar10_resnet20s_cpu
run() { "${PYTHON:-python}" sweep.py --space "$here/$1.yaml" --storage "${STORAGE:-results/cifar10_cpu}" --serial --address local --set trial.data_dir="$DATA"; }
run bip &
run hydra
run one_shot
run imp
wait
