#!/usr/bin/env bash
# Makes the clips that the shipped weights are tested on, from videos not used in training (clips.tsv): blurred in two
# ways, and sharp. Then scores the methods given, as heldout.py does; weights of your own are named by their file.
#   bash scripts/weights/heldout.sh unsharp fourier light balanced light-causal
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash scripts/setup.sh
source .venv/bin/activate
root=datasets/weights

python scripts/weights/corpus.py "$root"
# motion: averages of five frames with five in-betweens after each; hand: of three, with a camera that shakes
dblr prepare video "$root/test_footage/long" "$root/test/motion" --average 5 --in-between 5 --test-share 0
dblr prepare video "$root/test_footage/long" "$root/test/hand" --average 3 --in-between 5 --shake 1.5 --test-share 0
dblr prepare video "$root/test_footage/short" "$root/test/sharp" --average 1 --stride 1 --test-share 0
python scripts/weights/heldout.py "$root" "$@"
