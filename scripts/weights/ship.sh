#!/usr/bin/env bash
# Puts a checkpoint of the light network in the place of the weights that come with the package. What it adds to the
# blurry frame is taken at 75 %: footage is less sharp than photographs that were scaled down, and so a little less is
# as good where there is blur and better where there is none (docs/weights.md).
#   bash scripts/weights/ship.sh experiments/light_annealed/models/net_g_latest.pth
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source .venv/bin/activate
damped=$(mktemp --suffix=.pth)
trap 'rm -f "$damped"' EXIT
python - "$1" "$damped" <<'PYTHON'
import sys
import torch

content = torch.load(sys.argv[1], weights_only=True)
for weights in (content['params'], content['params_ema']):
    for name in ('last.weight', 'last.bias'):
        weights[name] *= 0.75
torch.save(content, sys.argv[2])
PYTHON
dblr export --weights "$damped" -o dblr_plugin/weights/MultiScaleDBLRNet_light.safetensors \
    --trained-on '223 free photographs in synthetic motion (scripts/weights/pictures.tsv)'
sha256sum dblr_plugin/weights/MultiScaleDBLRNet_light.safetensors
