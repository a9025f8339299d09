#!/usr/bin/env bash
# Scores the weights that come with the package on clips that they were not trained on (the table of
# dblr_plugin/weights/README.md), before and after. Some minutes on two CPU cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
source .venv/bin/activate
source scripts/weights_data.sh

prepare_clips "$footage" film_sharp 0 --average 1 --stride 1
prepare_clips "$footage" film_shake0_apart 0 --average 3 5 7
prepare_clips "$footage" film_blurred 0 --average 3 5 7 --stride 1
prepare_clips "$footage" film_shake0.5 0.5 --average 3 5 7 --stride 1
prepare_clips "$footage" film_shake1.5 1.5 --average 3 5 7 9 --stride 1
still coffee.png datasets/weights/unseen
prepare_clips datasets/weights/unseen unseen_shake0.5 0.5 --average 3 5 7
prepare_clips datasets/weights/unseen unseen_shake1.5 1.5 --average 5 9

dblr test -opt options/test_weights.yml --set name=weights_before 'network_g={type: MiddleFrame}' path.pretrain_network_g=~
dblr test -opt options/test_weights.yml
