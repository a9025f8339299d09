"""Checks that the data sets share for their options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dblr_plugin.errors import DBLRError

__all__ = ['label', 'not_negative', 'num_frame_of', 'positive_int', 'require_unit_scale', 'required']


def label(opt: Mapping[str, Any]) -> str:
    """Returns how messages call the data set of these options."""
    return f"dataset '{opt.get('name', opt.get('type', 'unnamed'))}'"


def required(opt: Mapping[str, Any], key: str) -> Any:
    """Returns ``opt[key]``; raises DBLRError when it is missing or null."""
    if opt.get(key) is None:
        raise DBLRError(f'{label(opt)}: {key} is missing; add it to the options')
    return opt[key]


def positive_int(opt: Mapping[str, Any], key: str, value: Any) -> int:
    """Returns ``value``, given under ``key``; raises DBLRError unless it is a whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DBLRError(f'{label(opt)}: {key} is {value!r}; it must be a whole number from 1')
    return value


def not_negative(opt: Mapping[str, Any], key: str) -> float:
    """Returns ``opt[key]``, 0 where it is not given; raises DBLRError unless it is a number from 0."""
    value = opt.get(key, 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise DBLRError(f'{label(opt)}: {key} is {value!r}; it must be a number from 0')
    return value


def num_frame_of(opt: Mapping[str, Any]) -> int:
    """Returns the frames of a window, 5 unless given; raises DBLRError unless odd, as a window needs a centre."""
    num_frame = positive_int(opt, 'num_frame', opt.get('num_frame', 5))
    if num_frame % 2 == 0:
        raise DBLRError(f'{label(opt)}: num_frame is {num_frame}; it must be odd, such as {num_frame + 1}')
    return num_frame


def require_unit_scale(opt: Mapping[str, Any]) -> None:
    """Raises DBLRError when the options ask for super-resolution."""
    if opt.get('scale', 1) != 1:
        raise DBLRError(f'{label(opt)}: scale is {opt["scale"]}; deblurring keeps the size, so it must be 1')
