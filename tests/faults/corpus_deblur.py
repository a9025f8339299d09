"""Damaged videos, folders and weights, and impossible arguments, for ``dblr deblur``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from cases import Case, Desk, Spoil
from mutations import ANY_FILE, ENDS_OF_IMAGES, INSIDE_OF_CHECKPOINT, INSIDE_OF_PNG, Damage, damage

__all__ = ['deblur', 'deblur_tolerated']


def deblur() -> Iterator[Case]:
    """Yields damaged inputs, outputs and weights, then arguments."""
    for name, kind in ANY_FILE.items():
        # a truncated Matroska file can be played
        for suffix in ('mp4',) if name == 'cut_anywhere' else ('mp4', 'mkv'):
            yield Case(f'deblur-{suffix}-{name}', partial(_video, f'video.{suffix}', kind), (f'video.{suffix}',))
    for number, (name, kind) in enumerate(ENDS_OF_IMAGES.items()):
        yield Case(f'deblur-frame-{name}', partial(_frame, kind, 'out'), ('00000003.png',), again=number % 3 > 0)
    for name, kind in INSIDE_OF_PNG.items():
        # found only when decoding, after earlier frames were restored
        yield Case(f'deblur-frame-{name}', partial(_frame, kind, 'out'), ('00000003.png',), resumable=True)
    for number, (name, kind) in enumerate((ANY_FILE | INSIDE_OF_CHECKPOINT).items()):
        spoil = partial(_damaged_weights, kind)
        yield Case(f'deblur-weights-{name}', spoil, ('net_g_latest.pth',), again=number % 4 > 0)
    # the frames restored before can be played
    yield Case('deblur-size_changes', size_changes, ('joined.mpg',), resumable=True)
    for spoil, culprit in _CASES:
        yield Case(f'deblur-{spoil.__name__}', spoil, (culprit,))
    for name, supply, arguments, culprit in _ARGUMENTS:
        yield Case(f'deblur-argument-{name}', partial(_with, supply, arguments), (culprit,))


def deblur_tolerated() -> Iterator[Case]:
    """Yields inputs that are restored in part, with a warning, and unusual inputs."""
    yield Case('deblur-mkv-cut', _cut_matroska, ('video.mkv is truncated',))
    yield Case('deblur-video-bad_sector', _bad_sector, ('damaged',))
    yield Case('deblur-pixel', _one_pixel, ())
    yield Case('deblur-folder-named-like-a-video', _into_folder_of_videos_name, ())


def run(desk: Desk, source: object, *arguments: object, output: object = 'out.mp4') -> list[object]:
    """Returns arguments that restore a source; ``arguments`` override the defaults."""
    weights = desk.supplies['experiment'] / 'models/net_g_latest.pth'
    plain = ('--backend', 'torch', '--fp32')
    return ['deblur', '-i', source, '-o', output, '--weights', weights, *plain, *arguments]


def _video(name: str, kind: Damage, desk: Desk) -> list[object]:
    path = desk.copy(name)
    damage(path, kind)
    return run(desk, path)


def _frame(kind: Damage, output: str, desk: Desk) -> list[object]:
    damage(desk.frame(), kind)
    return run(desk, desk.frame().parent, output=output)


def _damaged_weights(kind: Damage, desk: Desk) -> list[object]:
    path = Path(shutil.copy(desk.supplies['experiment'] / 'models/net_g_latest.pth', desk.inputs))
    damage(path, kind)
    return run(desk, desk.supplies['one.mp4'], '--weights', path)


def _with(supply: str, arguments: tuple[object, ...], desk: Desk) -> list[object]:
    source = desk.supplies['clips'] / 'lq/b' if supply == 'folder' else desk.supplies[supply]
    return run(desk, source, *arguments)


def _cut_matroska(desk: Desk) -> list[object]:
    path = desk.copy('video.mkv')
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    return run(desk, path)


def _bad_sector(desk: Desk) -> list[object]:
    path = desk.copy('video.mp4')
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    return run(desk, path)


def _one_pixel(desk: Desk) -> list[object]:
    (desk.inputs / 'tiny').mkdir()
    for number in range(3):
        cv2.imwrite(str(desk.inputs / f'tiny/{number}.png'), np.full((1, 1, 3), 60 * number, np.uint8))
    return run(desk, desk.inputs / 'tiny', output='out')


def _into_folder_of_videos_name(desk: Desk) -> list[object]:
    (desk.cwd / 'out.mp4').mkdir()
    return run(desk, desk.supplies['one.mp4'])


def input_missing(desk: Desk) -> list[object]:
    """A misspelt name."""
    return run(desk, desk.inputs / 'vidoe.mp4')


def input_is_a_pipe_name(desk: Desk) -> list[object]:
    """A URL, which FFmpeg would read from the network."""
    return run(desk, 'http://127.0.0.1:9/video.mp4')


def folder_empty(desk: Desk) -> list[object]:
    """An empty folder."""
    (desk.inputs / 'frames').mkdir()
    return run(desk, desk.inputs / 'frames', output='out')


def folder_of_other_things(desk: Desk) -> list[object]:
    """A folder of documents."""
    path = desk.copy('video.mp4')
    path.rename(path.with_suffix('.txt'))
    return run(desk, path.parent, output='out')


def folder_of_hidden_images(desk: Desk) -> list[object]:
    """Hidden files that some systems leave beside images."""
    (desk.inputs / 'frames').mkdir()
    shutil.copy(desk.frame(), desk.inputs / 'frames/._00000003.png')
    return run(desk, desk.inputs / 'frames', output='out')


def glob_of_nothing(desk: Desk) -> list[object]:
    """A glob with the wrong suffix."""
    return run(desk, desk.frame().parent / '*.tga', output='out')


def glob_of_two_clips(desk: Desk) -> list[object]:
    """Frames with the same names in two folders."""
    return run(desk, desk.clips / 'lq/*/*.png', output='out')


def sizes_mixed(desk: Desk) -> list[object]:
    """A frame of another size."""
    cv2.imwrite(str(desk.frame()), np.zeros((48, 50, 3), np.uint8))
    return run(desk, desk.frame().parent, output='out')


def name_in_latin1(desk: Desk) -> list[object]:
    """A frame whose name is not UTF-8."""
    Path(str(desk.frame().parent / '\udce4.png')).write_bytes(desk.frame().read_bytes())
    return run(desk, desk.frame().parent, output='out')


def frame_is_folder(desk: Desk) -> list[object]:
    """A folder with the name of a frame."""
    desk.frame().unlink()
    desk.frame().mkdir()
    return run(desk, desk.frame().parent, output='out')


def link_dangles(desk: Desk) -> list[object]:
    """A link to a disk that is not mounted."""
    desk.frame().unlink()
    desk.frame().symlink_to('/nowhere/3.png')
    return run(desk, desk.frame().parent, output='out')


def output_is_input(desk: Desk) -> list[object]:
    """A video as its own output."""
    path = desk.copy('video.mp4')
    return run(desk, path, output=path)


def output_links_to_input(desk: Desk) -> list[object]:
    """A link to the input as output."""
    path = desk.copy('video.mp4')
    (desk.cwd / 'out.mp4').symlink_to(path)
    return run(desk, path)


def output_is_input_folder(desk: Desk) -> list[object]:
    """A folder as its own output."""
    return run(desk, desk.frame().parent, output=desk.frame().parent)


def output_is_input_image(desk: Desk) -> list[object]:
    """An image as its own output."""
    return run(desk, desk.frame(), output=desk.frame())


def output_folder_is_file(desk: Desk) -> list[object]:
    """A file in place of the output folder."""
    (desk.cwd / 'out').write_text('mine')
    return run(desk, desk.supplies['one.mp4'], output='out')


def output_below_file(desk: Desk) -> list[object]:
    """A video below a file."""
    (desk.cwd / 'out').write_text('mine')
    return run(desk, desk.supplies['one.mp4'], output='out/video.mp4')


def output_cannot_be_made(desk: Desk) -> list[object]:
    """An output folder that cannot be made."""
    return run(desk, desk.supplies['one.mp4'], output='/proc/dblr/out.mp4')


def output_folder_refuses(desk: Desk) -> list[object]:
    """An existing output folder that cannot be written to."""
    return run(desk, desk.supplies['one.mp4'], output='/proc/self/out.mp4')


def pictures_folder_refuses(desk: Desk) -> list[object]:
    """The same for image output."""
    return run(desk, desk.supplies['one.mp4'], output='/proc/self')


def output_one_image(desk: Desk) -> list[object]:
    """One image for many frames."""
    return run(desk, desk.frame().parent, output='out.png')


def weights_of_another_network(desk: Desk) -> list[object]:
    """Weights whose stored options do not match them."""
    content = torch.load(desk.supplies['experiment'] / 'models/net_g_latest.pth')
    torch.save(content | {'network': content['network'] | {'num_feat': 32}}, desk.inputs / 'net.pth')
    return run(desk, desk.supplies['one.mp4'], '--weights', desk.inputs / 'net.pth')


def weights_of_an_unknown_network(desk: Desk) -> list[object]:
    """Weights of a network that is not installed."""
    torch.save({'params': {'w': torch.ones(1)}, 'network': {'type': 'BasicVSRPlusPlus2'}}, desk.inputs / 'net.pth')
    return run(desk, desk.supplies['one.mp4'], '--weights', desk.inputs / 'net.pth')


def weights_that_do_not_say(desk: Desk) -> list[object]:
    """Weights without the options of their network."""
    return run(desk, desk.supplies['one.mp4'], '--weights', desk.supplies['net'])


def weights_of_a_discriminator(desk: Desk) -> list[object]:
    """Weights of a network that does not restore frames."""
    content = {'params': {'w': torch.ones(1)}, 'network': {'type': 'DBLRDiscriminator', 'num_in_ch': 1}}
    torch.save(content, desk.inputs / 'net_d.pth')
    return run(desk, desk.supplies['one.mp4'], '--weights', desk.inputs / 'net_d.pth')


def option_file_of_another_network(desk: Desk) -> list[object]:
    """An option file that does not match the weights."""
    (desk.inputs / 'other.yml').write_text('network_g: {type: DBLRNet, num_feat: 32, num_block: 1}')
    return run(desk, desk.supplies['one.mp4'], '--weights', desk.supplies['net'], '-opt', desk.inputs / 'other.yml')


def option_file_missing(desk: Desk) -> list[object]:
    """A missing option file."""
    return run(desk, desk.supplies['one.mp4'], '-opt', desk.inputs / 'train.yml')


def size_changes(desk: Desk) -> list[object]:
    """Two recordings of different sizes in one file."""
    path = desk.inputs / 'joined.mpg'
    path.write_bytes(desk.supplies['video.mpg'].read_bytes() + _larger(desk).read_bytes())
    return run(desk, path)


def _larger(desk: Desk) -> Path:
    import av

    path = desk.inputs / 'larger.mpg'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg2video', rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 80, 'yuv420p'
        for _ in range(12):
            frame = av.VideoFrame.from_ndarray(np.zeros((80, 96, 3), np.uint8), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


_CASES: tuple[tuple[Spoil, str], ...] = (
    (input_missing, 'vidoe.mp4'),
    (input_is_a_pipe_name, 'video.mp4'),
    (folder_empty, 'frames'),
    (folder_of_other_things, 'inputs'),
    (folder_of_hidden_images, 'frames'),
    (glob_of_nothing, '*.tga'),
    (glob_of_two_clips, '*.png'),
    (sizes_mixed, '00000003.png'),
    (name_in_latin1, 'UTF-8'),
    (frame_is_folder, '00000003.png'),
    (link_dangles, '00000003.png'),
    (output_is_input, 'video.mp4'),
    (output_links_to_input, 'out.mp4'),
    (output_is_input_folder, '00000000.png'),
    (output_is_input_image, '00000003.png'),
    (output_folder_is_file, 'out'),
    (output_below_file, 'out'),
    (output_cannot_be_made, '/proc/dblr'),
    (output_folder_refuses, '/proc/self/out.mp4'),
    (pictures_folder_refuses, '/proc/self'),
    (output_one_image, 'out.png'),
    (weights_of_another_network, 'net.pth'),
    (weights_of_an_unknown_network, 'net.pth'),
    (weights_that_do_not_say, 'net.pth'),
    (weights_of_a_discriminator, 'net_d.pth'),
    (option_file_of_another_network, 'net.pth'),
    (option_file_missing, 'train.yml'),
)

#: name, what is restored, arguments, culprit
_ARGUMENTS: tuple[tuple[str, str, tuple[object, ...], str], ...] = (
    ('sound-alone', 'sound.wav', (), 'sound.wav'),
    ('no-pictures', 'none.mkv', (), 'none.mkv'),
    ('start-after-end-of-video', 'video.mp4', ('--start', '2'), 'start'),
    ('start-after-end-of-mpg', 'video.mpg', ('--start', '1:00:00'), 'start'),
    ('start-beyond-all-numbers', 'video.mp4', ('--start', '9' * 30), 'start'),
    ('start-of-too-many-digits', 'video.mp4', ('--start', '9' * 5000), 'start'),
    ('start-after-end', 'video.mp4', ('--start', '0.8', '--end', '0.4'), 'end'),
    ('start-negative', 'video.mp4', ('--start', '-1'), "--start '-1'"),
    ('start-of-text', 'video.mp4', ('--start', 'noon'), "--start 'noon'"),
    ('start-nan', 'video.mp4', ('--start', 'nan'), "--start 'nan'"),
    ('end-zero', 'video.mp4', ('--end', '0'), 'end'),
    ('end-negative', 'video.mp4', ('--end=-0:01',), "--end '-0:01'"),
    ('folder-start-after-end', 'folder', ('--start', '5', '--end', '5'), 'start'),
    ('folder-start-beyond', 'folder', ('--start', '8'), 'start'),
    ('folder-start-of-time', 'folder', ('--start', '0:01'), "--start '0:01'"),
    ('folder-start-of-too-many-digits', 'folder', ('--start', '9' * 5000), 'start'),
    ('folder-end-negative', 'folder', ('--end', '-3'), "--end '-3'"),
    ('scale-zero', 'video.mp4', ('--scale-down', '0'), '--scale-down'),
    ('scale-negative', 'video.mp4', ('--scale-down', '-2'), '--scale-down'),
    ('scale-below-one', 'folder', ('--scale-down', '0.5'), '--scale-down'),
    ('scale-nan', 'video.mp4', ('--scale-down', 'nan'), '--scale-down'),
    ('scale-infinite', 'video.mp4', ('--scale-down', 'inf'), '--scale-down'),
    ('scale-huge', 'folder', ('--scale-down', '1e9'), '--scale-down'),
    ('tile-negative', 'video.mp4', ('--tile', '-64'), '--tile'),
    ('tile-tiny', 'video.mp4', ('--tile', '1'), '--tile'),
    ('tile-of-text', 'video.mp4', ('--tile', 'small'), '--tile'),
    ('fps-zero', 'folder', ('--fps', '0'), "--fps '0'"),
    ('fps-nan', 'folder', ('--fps', 'nan'), "--fps 'nan'"),
    ('fps-infinite', 'folder', ('--fps', 'inf'), "--fps 'inf'"),
    ('fps-over-zero', 'folder', ('--fps', '30000/0'), "--fps '30000/0'"),
    ('fps-of-a-long-power', 'folder', ('--fps', '1e999999999'), "--fps '1e999999999'"),
    ('fps-of-a-video', 'video.mp4', ('--fps', '50'), 'video.mp4'),
    ('fps-for-pictures', 'folder', ('-o', 'out', '--fps', '50'), 'fps'),
    ('quality-too-high', 'folder', ('--quality', '64'), '--quality'),
    ('quality-negative', 'folder', ('--quality', '-1'), '--quality'),
    ('quality-nan', 'folder', ('--quality', 'nan'), '--quality'),
    ('quality-of-lossless', 'folder', ('--lossless', '--quality', '9'), '--quality'),
    ('preset-unknown', 'folder', ('--preset', 'slwo'), "'slow'"),
    ('encoder-unknown', 'folder', ('--encoder', 'libx266'), 'libx266'),
    ('encoder-empty', 'folder', ('--encoder', ''), "encoder ''"),
    ('encoder-of-sound', 'folder', ('--encoder', 'aac'), 'aac'),
    ('encoder-elsewhere', 'folder', ('--encoder', 'libx264', '-o', 'out.webm'), '.webm'),
    ('encoder-for-pictures', 'folder', ('--encoder', 'libx264', '-o', 'out'), 'encoder'),
    ('lossless-without-such-encoder', 'folder', ('--lossless', '--encoder', 'mpeg4'), 'mpeg4'),
    ('suffix-unwritten', 'folder', ('-o', 'out.mpg'), '.mpg'),
    ('suffix-of-a-video', 'folder', ('--suffix', '_sharp'), '_sharp'),
    ('suffix-that-leaves-the-folder', 'folder', ('-o', 'out', '--suffix', '/../../x'), '/../../x'),
    ('output-empty', 'folder', ('-o', ''), '--output'),
    ('input-empty', 'folder', ('-i', ''), '--input'),
    ('device-unknown', 'one.mp4', ('--device', 'gpu'), "'gpu'"),
    ('device-absent', 'one.mp4', ('--device', 'cuda:7'), "'cuda:7'"),
    ('device-without-memory', 'one.mp4', ('--device', 'meta'), "'meta'"),
    ('device-empty', 'one.mp4', ('--device', ''), "''"),
    ('backend-unknown', 'one.mp4', ('--backend', 'tensorrt'), 'tensorrt'),
    ('weights-missing', 'one.mp4', ('--weights', 'net_g.pth'), 'net_g.pth'),
    ('weights-are-a-folder', 'one.mp4', ('--weights', '.'), '.'),
    ('causal-without-such-weights', 'one.mp4', ('--causal',), '--causal'),
)  # fmt: skip
