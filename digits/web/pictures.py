"""Prepares the pictures of a request: a small one in the event loop, and others in another process."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial

import numpy as np

from digits.imaging import CostlyPictures, Prepared, prepare_pages
from digits.imaging.formats import format_of
from digits.model import scale
from digits.reading.search import locate
from digits.web.service import service

# bytes and pixels of the largest picture that is prepared in the event loop
MAX_BYTES, MAX_PIXELS = 1 << 16, 300 * 300
# a picture that contains this is not, because its header doesn't show what it costs
COSTLY = re.compile(rb"zTXt|iTXt|iCCP|\xff\xc2")


def prepared(pictures: list[bytes], names: list[str], as_is: bool) -> tuple[np.ndarray, list[dict[str, int]]]:
    """float32 (n, 28, 28, 1) in [0, 1], and for each picture `page` and `pages` if its file has several pages.

    Raises what `digits.imaging.prepare_pages` raises.
    """
    found: list[Prepared] = []
    if len(pictures) == 1 and is_quick(pictures[0]):
        with suppress(CostlyPictures):
            found = prepare_pages(pictures, names, as_is, max_pixels=MAX_PIXELS)
    found = found or service().offload(partial(_prepare, pictures, names, as_is))
    pages = [{"page": each.page, "pages": each.pages} if each.pages > 1 else {} for each in found]
    return scale(np.stack([each.image for each in found])), pages


def is_quick(picture: bytes) -> bool:
    """Whether a picture's cost is bounded by its number of bytes and of pixels."""
    if len(picture) > MAX_BYTES:
        return False
    kind = format_of(picture)
    return kind is not None and kind.quick and not COSTLY.search(picture)


def _prepare(pictures: list[bytes], names: list[str], as_is: bool) -> list[Prepared]:
    # runs in another process, and the detector can't be pickled
    return prepare_pages(pictures, names, as_is, partial(locate, service().detector))
