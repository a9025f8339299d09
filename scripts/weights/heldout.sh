#!/usr/bin/env bash
# Makes the clips that the shipped weights are tested on: real footage that no training saw (clips.tsv), blurred in two ways, and
# sharp. Then scores what is named, as scripts/weights/heldout.py does. Weights of your own are named by their file.
#   bash scripts/weights/heldout.sh unsharp fourier light balanced light-causal
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/setup.sh
source .venv/bin/activate
root=datasets/weights

python scripts/weights/corpus.py "$root"
# five frames of the film make one, and as many between each two, or three and a camera held by hand
dblr prepare video "$root/test_footage/long" "$root/test/motion" --average 5 --in-between 5 --test-share 0
dblr prepare video "$root/test_footage/long" "$root/test/hand" --average 3 --in-between 5 --shake 1.5 --test-share 0
dblr prepare video "$root/test_footage/short" "$root/test/sharp" --average 1 --stride 1 --test-share 0
python scripts/weights/heldout.py "$root" "$@"
