#!/usr/bin/env bash
# Puts a checkpoint of the light network in the place of the weights that come with the package.
#   bash scripts/weights/ship.sh experiments/light_annealed/models/net_g_latest.pth
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source .venv/bin/activate
dblr export --weights "$1" -o dblr_plugin/weights/MultiScaleDBLRNet_light.safetensors \
    --trained-on '223 free photographs in synthetic motion (scripts/weights/pictures.tsv)'
sha256sum dblr_plugin/weights/MultiScaleDBLRNet_light.safetensors
