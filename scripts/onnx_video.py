"""Restores a video with a file written by ``dblr export``, using only onnxruntime: an example for other programs.

    python scripts/onnx_video.py net.onnx shaky.mp4 sharp.mp4
    python scripts/onnx_video.py net.onnx shaky.mp4 sharp.mp4 --providers CUDAExecutionProvider CPUExecutionProvider

It takes one-channel (Y) and RGB networks that restore one frame of a window, without optical flow. Unlike ``dblr
deblur``, it ignores cuts and only takes frames with sides that are multiples of the file's ``pad_multiple``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import onnxruntime

from dblr_plugin.data.windows import StreamFrame, windows
from dblr_plugin.video import Frame, open_sink, open_source

_Y = np.array([65.481, 128.553, 24.966], np.float32) / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('network')
    parser.add_argument('input')
    parser.add_argument('output')
    available = onnxruntime.get_available_providers()
    parser.add_argument(
        '--providers', nargs='+', default=available, metavar='NAME', help=f'here: {" ".join(available)}'
    )
    args = parser.parse_args()
    session = onnxruntime.InferenceSession(args.network, providers=args.providers)
    facts = session.get_modelmeta().custom_metadata_map
    if 'flow' in facts or facts['restored_frame'] == 'all':
        parser.error(f'{args.network}: its frames are aligned by flow, or all restored at once; use dblr deblur')
    length, restored = int(facts['num_frame']), int(facts['restored_frame'])
    colour = session.get_inputs()[0].shape[2] == 3
    blank = np.zeros((18, 32), np.float32)  # identical thumbnails: no cuts
    with open_source(args.input) as source:
        sink = open_sink(args.output, source)
        frames = (StreamFrame((frame, planes(frame, colour)), blank) for frame in source)
        for window in windows(frames, length, causal=length > 1 and restored == length - 1):
            stacked = np.stack([plane for _, plane in window])[None]
            (out,) = session.run(None, {'window': stacked})
            sink.write(merged(window[restored][0], stacked[0, restored], out[0]))
        sink.finish()


def planes(frame: Frame, colour: bool) -> np.ndarray:
    """Converts a frame to the network's input, float32 ``(c, h, w)``."""
    rgb = frame.pixels.astype(np.float32) / np.iinfo(frame.pixels.dtype).max
    return rgb.transpose(2, 0, 1).copy() if colour else (rgb @ _Y + np.float32(16 / 255))[None]


def merged(frame: Frame, given: np.ndarray, out: np.ndarray) -> Frame:
    """Returns the frame with the restored planes; a change of Y is added equally to R, G and B."""
    top = np.iinfo(frame.pixels.dtype).max
    rgb = out.transpose(1, 2, 0) if len(out) == 3 else frame.pixels / top + (out - given)[0, ..., None] * (255 / 219)
    return replace(frame, pixels=(rgb.clip(0, 1) * top).round().astype(frame.pixels.dtype))


if __name__ == '__main__':
    main()
