"""Writes small intact inputs."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from prepare.source_trees import link_frames, numbered

from dblr_plugin.prepare.data_sets import DVD_SCENES, DVD_TEST, DVD_TRAIN, GOPRO_TEST, GOPRO_TRAIN

__all__ = ['write_checkout', 'write_databases', 'write_layout', 'write_video', 'write_videos']


def write_databases(clips: Path, root: Path) -> dict[str, Path]:
    """Writes ``lmdb`` and ``tiles``, folders with ``lq.lmdb`` and ``gt.lmdb``."""
    from dblr_plugin.data.lmdb_writer import write_lmdb, write_tiles

    for kind, write in (('lmdb', write_lmdb), ('tiles', write_tiles)):
        (root / kind).mkdir(parents=True)
        for side in ('lq', 'gt'):
            write(clips / side, root / kind / f'{side}.lmdb', progress=False)
    return {'lmdb': root / 'lmdb', 'tiles': root / 'tiles'}


def write_videos(root: Path) -> dict[str, Path]:
    """Writes videos of 24 frames of 64x48 in four formats, one with one frame, one with none, and a WAV file."""
    root.mkdir()
    for suffix, codec in (('mp4', 'mpeg4'), ('mkv', 'mpeg4'), ('avi', 'mjpeg'), ('mpg', 'mpeg2video')):
        write_video(root / f'video.{suffix}', codec, 24)
    write_video(root / 'one.mp4', 'mpeg4', 1)
    write_video(root / 'none.mkv', 'mpeg4', 0)
    with wave.open(str(root / 'sound.wav'), 'wb') as sound:
        sound.setparams((1, 2, 8000, 0, 'NONE', ''))
        sound.writeframes(bytes(16000))
    return {path.name: path for path in root.iterdir()}


def write_video(path: Path, codec: str, frames: int) -> None:
    """Writes moving noise of 64x48 at 25 frames per second."""
    import av

    noise = np.random.default_rng(0).integers(0, 256, (48, 64 + frames, 3), np.uint8)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        if not frames:
            container.start_encoding()
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[:, number : number + 64]), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_layout(name: str, picture: Path, root: Path) -> Path:
    """Writes a data set in its published layout, as links to one image, complete where counts are checked."""
    for folder, names in _folders(name):
        link_frames(picture, root / name / folder, names)
    return root / name


def _folders(name: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the folders of a data set and the frames in each."""
    if name == 'dvd':
        for video, count in {**DVD_TRAIN, **DVD_TEST}.items():
            yield from ((f'{video}/{side}', numbered(count, digits=5)) for side in ('input', 'GT'))
    elif name == 'dvd-qualitative':
        yield from ((f'scene{number}/input', numbered(3, digits=5)) for number in range(DVD_SCENES))
    elif name == 'gopro':
        for part, sequences in (('train', GOPRO_TRAIN), ('test', GOPRO_TEST)):
            for sequence, count in sequences.items():
                frames = numbered(count, digits=6, first=1)
                yield from ((f'{part}/{sequence}/{side}', frames) for side in ('blur_gamma', 'sharp'))
    elif name == 'bsd':
        for part, clips in (('train', 60), ('test', 20)):  # of two frames, as no case is about their number
            for number in range(clips):
                yield from ((f'{part}/{number:03d}/{side}/RGB', numbered(2)) for side in ('Blur', 'Sharp'))
    elif name == 'kitti':
        frames = [f'{scene:06d}_{frame}.png' for scene in range(199) for frame in ('09', '10', '11')]
        yield from ((f'{side}/{camera}', frames) for side in ('blur', 'sharp') for camera in ('image_2', 'image_3'))
    elif name == 'reds':  # only three of 240 and 30 clips
        for kind in ('blur', 'sharp'):
            yield from ((f'train/train_{kind}/{number:03d}', numbered(100)) for number in range(3))
    else:
        raise KeyError(name)


def write_checkout(root: Path) -> dict[str, Path]:
    """Writes ``checkout``, the parts of BasicSR's source tree that ``dblr link`` looks for."""
    for folder in ('basicsr/archs', 'basicsr/models'):
        (root / folder).mkdir(parents=True)
    (root / 'basicsr/train.py').write_text('')
    (root / 'VERSION').write_text('1.4.2\n')
    return {'checkout': root}
