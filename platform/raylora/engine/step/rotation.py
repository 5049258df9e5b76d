"""The functions of rotation.c."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from raylora.lora.native import library

_SOURCE = Path(__file__).with_name("rotation.c")


class Rotation(NamedTuple):
    """Of queries and keys; keys and values go to their places in the cache."""

    rotate_and_keep: Callable[..., None]
    """All tokens in one column, one a row."""
    rotate_and_place: Callable[..., None]
    """Each token in its own row and column."""


@functools.cache
def rotation(dtype: torch.dtype) -> Rotation | None:
    """For a number format; None where it cannot be had."""
    found = library(_SOURCE, dtype)
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    keep, place = found.rotate_and_keep, found.rotate_and_place
    keep.argtypes = [*(pointer,) * 7, *(number,) * 7]
    place.argtypes = [*(pointer,) * 7, number, number, pointer, pointer, *(number,) * 4]
    place.argtypes += [ctypes.c_int]
    keep.restype = place.restype = None
    return Rotation(keep, place)
