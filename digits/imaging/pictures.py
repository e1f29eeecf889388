"""A picture of a digit becomes an image as MNIST has them: digits/serving/inputs.py calls `prepare` for each
PNG or JPEG that a client sends.

MNIST's authors scaled a digit into 20x20 keeping its aspect and centred it by mass in 28x28, ink bright on black
(LeCun et al. 1998, "Gradient-based learning applied to document recognition", III.A). Before that, ink has to be
told from paper: the paper is a smooth surface that most of a picture lies on, whatever its brightness, so it
is fitted (a plane to the border, from there a quadratic, both robustly); ink is what departs from it to the side
that departs most. That treats dark on light and light on dark alike by construction, and takes shadows away.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from digits.imaging.errors import PictureError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_SIDE = 10_000
# more than a digit needs; decoded, a picture takes up to four bytes a pixel
MOST_PIXELS = 16_000_000
# of all pictures of a request: a few kilobytes may hold a picture of millions, and a request a thousand of them
MOST_PIXELS_TOGETHER = 64_000_000

# pixels of the longer side that a digit is looked at with: six for each that the network sees
LOOK = 160
# the same for large pictures, in which the digit has to be found first
FIRST_LOOK = 480
# of 255: what is fainter is no writing
LEAST_CONTRAST = 14.0
# strokes as wide as MNIST's, of the 20 pixels a digit is high; others are brought there
THINNEST, THICKEST = 1.5, 4.6


def prepare(data: list[bytes], names: list[str], as_is: bool = False) -> np.ndarray:
    """The pictures in `data` as uint8 (n, 28, 28), ink bright on black.

    names: what to call each in a problem. as_is: take pictures of 28x28 pixels as they are, only made grey.
    Raises PictureError: 413 for too many pixels, 415 for another format, 422 for a damaged picture, one without a
    digit, or as_is with another size.
    """
    pictures = [_open(content, name) for content, name in zip(data, names, strict=True)]
    pixels = sum(picture.width * picture.height for picture in pictures)
    if pixels > MOST_PIXELS_TOGETHER:
        detail = f"The pictures have more than {MOST_PIXELS_TOGETHER} pixels together."
        raise PictureError(413, detail, field=names[0], found=f"{pixels} pixels")
    out = np.empty((len(pictures), 28, 28), np.uint8)
    for i, name in enumerate(names):
        grey = _grey(_decode(pictures[i], name, as_is), name)
        out[i] = _plain(grey, name) if as_is else _prepared(grey, name)
        pictures[i].close()
    return out


def _plain(grey: Image.Image, name: str) -> np.ndarray:
    if grey.size != (28, 28):
        found = f"{grey.width}x{grey.height}"
        raise PictureError(422, f"{name} is to have 28x28 pixels with prepare=none.", field=name, found=found)
    return np.clip(np.asarray(grey, np.float32).round(), 0, 255).astype(np.uint8)


def _prepared(grey: Image.Image, name: str) -> np.ndarray:
    small = _look(grey, (0, 0, *grey.size), FIRST_LOOK if max(grey.size) > 4 * LOOK else LOOK)
    ink = _ink(small)
    if ink is None:
        raise PictureError(
            422, f"{name} shows nothing: its pixels hardly differ.", field=name, found="an empty picture"
        )
    top, bottom, left, right = _box(ink)
    longer = max(bottom - top, right - left)
    scale = max(grey.size) / max(small.shape)
    if scale > 1 and longer < LOOK / 2:
        # a small digit in a large picture: look again, at that part only
        margin = 0.4 * longer
        part = (
            max(0, int((left - margin) * scale)),
            max(0, int((top - margin) * scale)),
            min(grey.width, int((right + margin) * scale) + 1),
            min(grey.height, int((bottom + margin) * scale) + 1),
        )
        closer = _ink(_look(grey, part, LOOK))
        if closer is not None:
            # what the first look took away, as a frame around the digit, stays away
            kept = Image.fromarray((ink > 0).astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(5))
            seen = tuple(min(edge / scale, most) for edge, most in zip(part, kept.size * 2, strict=True))
            kept = kept.resize(closer.shape[::-1], Image.Resampling.NEAREST, seen)
            closer = np.where(np.asarray(kept) > 0, closer, 0)
        if closer is not None and closer.max() > 0.25:
            ink = closer
            top, bottom, left, right = _box(ink)
    return _as_mnist(ink[top:bottom, left:right])


def _open(data: bytes, name: str) -> Image.Image:
    """The picture with only its header read: nothing is spent on one that is refused here."""
    try:
        picture = Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, "a picture of enormous size") from None
    except Exception:
        raise PictureError(
            415, f"{name} is no picture of a format that is taken.", field=name, formats=list(FORMATS)
        ) from None
    width, height = picture.size
    if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
        raise _too_large(name, f"{width}x{height} pixels")
    return picture


def _too_large(name: str, found: str) -> PictureError:
    detail = f"{name} has more than {MOST_PIXELS} pixels or a side over {MOST_SIDE}."
    return PictureError(413, detail, field=name, found=found)


def _decode(picture: Image.Image, name: str, as_is: bool) -> Image.Image:
    try:
        if picture.format == "JPEG" and not as_is:
            # decodes to half, a quarter or an eighth at once
            picture.draft(None, (4 * LOOK, 4 * LOOK))
        picture.load()
        return ImageOps.exif_transpose(picture)
    except Exception as error:
        # a damaged file shows as almost any exception, from OSError to struct.error
        reason = type(error).__name__
        raise PictureError(422, f"{name} is a damaged picture.", field=name, found=reason) from None


def _grey(picture: Image.Image, name: str) -> Image.Image:
    """Brightness 0 to 255, mode L or F; what is transparent shows the paper that fits the ink."""
    if picture.mode not in ("I", "F") and "16" not in picture.mode:
        if "A" not in picture.getbands() and "transparency" not in picture.info:
            return picture.convert("L")
        both = _not_too_large(picture.convert("RGBA")).convert("LA")
        grey, alpha = (np.asarray(band, np.float32) for band in both.split())
        weight = float(alpha.sum())
        ink = float((grey * alpha).sum()) / weight if weight else 255.0
        paper = np.float32(255 if ink < 128 else 0)
        return Image.fromarray(paper + (grey - paper) * (alpha / np.float32(255)))
    values = np.asarray(picture, np.float32)
    if not np.isfinite(values).all():
        raise PictureError(
            422, f"{name} has pixels that are no numbers.", field=name, found="NaN or Infinity"
        )
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        # 16 bits and more: what a picture calls white is told by its range only
        bottom, top = min(low, 0.0), 65535.0 if low >= 0 and high <= 65535 else high
        values = (values - np.float32(bottom)) * np.float32(255 / (top - bottom))
    elif picture.mode == "F" and high <= 1:
        values = values * np.float32(255)
    return Image.fromarray(values)


def _not_too_large(picture: Image.Image) -> Image.Image:
    """Halved until the arrays made of it are small."""
    while picture.width * picture.height > 4_000_000:
        picture = picture.reduce(2)
    return picture


def _look(grey: Image.Image, box: tuple[int, int, int, int], longest: int) -> np.ndarray:
    """That part of the picture, its longer side at most `longest` pixels, float32."""
    width, height = box[2] - box[0], box[3] - box[1]
    ratio = min(1.0, longest / max(width, height))
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(grey.resize(size, Image.Resampling.BOX, box), np.float32)


def _ink(grey: np.ndarray) -> np.ndarray | None:
    """How much each pixel is ink, float32 in [0, 1], specks taken out; None where there is no writing."""
    paper, noise = _paper(grey)
    departs = grey - paper
    # ink departs far and is little; noise and paper depart to both sides alike
    up, down = np.maximum(departs, 0), np.maximum(-departs, 0)
    ink = up if np.vdot(up, up) > np.vdot(down, down) else down
    # of the few pixels that depart most, not of the one that a scratch may be
    few = min(ink.size, max(4, ink.size // 16_000))
    # looked for among all, it takes longest where most are 0
    most = ink[ink > ink.max() / 2]
    strong = float(np.partition(most if most.size >= few else ink, -few, axis=None)[-few])
    if strong < max(LEAST_CONTRAST, 5 * noise):
        return None
    low = max(0.12 * strong, min(2.5 * noise, 0.4 * strong))
    ink = np.clip((ink - low) / (0.85 * strong - low), 0, 1)
    return _without_specks(ink)


def _paper(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """The surface that the paper's brightness lies on, float32 like `grey`, and how far paper departs from it."""
    height, width = grey.shape
    step = max(1, max(height, width) // 24)
    y, x = np.mgrid[0:height:step, 0:width:step].astype(np.float32)
    y, x = y / max(height - 1, 1) - 0.5, x / max(width - 1, 1) - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=2)
    grid = grey[::step, ::step]
    fit = np.zeros(6, np.float32)
    # ink on more than half of the border is rarer than ink on more than half of a tight crop
    fit[:3] = _plane(_border(terms)[:, :3], _border(grid))
    terms, sample = terms.reshape(-1, 6), grid.ravel()
    near = np.abs(sample - terms @ fit)
    spread = max(12.0, 3 * float(np.median(near[near <= np.median(near)])))
    keep, rest = near < spread, near
    for _ in range(4):
        if np.count_nonzero(keep) < 0.2 * keep.size:
            break
        kept = terms[keep]
        # the small term keeps it solvable when few places are left
        fit = np.linalg.solve(kept.T @ kept + 1e-3 * np.eye(6, dtype=np.float32), kept.T @ sample[keep])
        rest = np.abs(sample - terms @ fit)
        keep = rest < max(6.0, 2.5 * 1.4826 * float(np.median(rest[keep])))
    y = np.arange(height, dtype=np.float32) / max(height - 1, 1) - 0.5
    x = np.arange(width, dtype=np.float32) / max(width - 1, 1) - 0.5
    a, b, c, d, e, f = fit
    # the same polynomial ordered by powers of x, as one product of matrices
    down = np.stack([a + c * y + f * y * y, b + d * y, np.full_like(y, e)], axis=1)
    # told by the places that are paper, as a tight crop is mostly ink
    noise = 1.4826 * float(np.median(rest[keep]))
    return down @ np.stack([np.ones_like(x), x, x * x]), noise


def _border(grid: np.ndarray) -> np.ndarray:
    return np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])


def _plane(terms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The plane with the least absolute departures, which a minority of other values hardly moves; (3,).

    By least squares weighted anew (Schlossmacher 1973, doi:10.1080/01621459.1973.10481449).
    """
    fit = np.array([np.median(values), 0, 0], np.float32)
    for _ in range(5):
        # departures of two grey levels are as good as none
        weighted = terms / np.maximum(np.abs(values - terms @ fit), 2)[:, None]
        fit = np.linalg.solve(weighted.T @ terms + 1e-4 * np.eye(3, dtype=np.float32), weighted.T @ values)
    return fit


def _without_specks(ink: np.ndarray) -> np.ndarray:
    """`ink` without a frame, and without what hangs together but is far smaller than the digit's main part."""
    labels, boxes = _components(ink > 0.3)
    if len(boxes) <= 2:
        return ink
    mass = np.bincount(labels.ravel(), weights=ink.ravel(), minlength=len(boxes))
    mass[0] = 0
    mass[_frames(labels, boxes)] = 0
    small = mass < 0.06 * mass.max()
    small[0] = False
    if not small.any():
        return ink
    # the specks' faint rims go with them
    speck = Image.fromarray(small[labels].astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(5))
    main = Image.fromarray(((labels > 0) & ~small[labels]).astype(np.uint8) * 255).filter(
        ImageFilter.MaxFilter(3)
    )
    return np.where((np.asarray(speck) > 0) & (np.asarray(main) == 0), 0, ink)


def _frames(labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which labels are a frame or an edge: they run along the picture's sides, and the digit lies within."""
    height, width = labels.shape
    inside = np.bincount(labels[height // 8 : height - height // 8, width // 8 : width - width // 8].ravel())
    top, bottom, left, right = (boxes / np.repeat((height, width), 2)).T
    long = (right - left > 0.84) | (bottom - top > 0.84)
    frames = long & (np.pad(inside, (0, len(boxes) - len(inside))) == 0)
    within = (np.minimum(top, left) > 0.08) & (np.maximum(bottom, right) < 0.92)
    # a digit's own parts reach the sides of its crop
    digit = within & (np.maximum(bottom - top, right - left) > 0.06)
    return frames & digit[1:].any()


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels hang together (8 neighbours): labels from 1, and their boxes (top, bottom, left, right).

    Runs of a row are joined with those they touch in the row above (union-find).
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    rows, columns = np.nonzero(np.diff(padded, axis=1))
    row, start, stop = rows[::2].tolist(), columns[::2].tolist(), columns[1::2].tolist()
    parent = list(range(len(row)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    above = 0
    for i, y in enumerate(row):
        while row[above] < y - 1 or (row[above] == y - 1 and stop[above] < start[i]):
            above += 1
        j = above
        while j < i and row[j] == y - 1 and start[j] <= stop[i]:
            parent[root(i)] = root(j)
            j += 1
    names: dict[int, int] = {}
    labels = np.zeros(mask.shape, np.int32)
    for i, y in enumerate(row):
        labels[y, start[i] : stop[i]] = names.setdefault(root(i), len(names) + 1)
    of = np.array([names[root(i)] for i in range(len(row))], int)
    boxes = np.tile([height, 0, width, 0], (len(names) + 1, 1))
    np.minimum.at(boxes[:, 0], of, rows[::2])
    np.maximum.at(boxes[:, 1], of, rows[::2] + 1)
    np.minimum.at(boxes[:, 2], of, columns[::2])
    np.maximum.at(boxes[:, 3], of, columns[1::2])
    return labels, boxes


def _box(ink: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of what is ink."""
    there = ink > 0.25
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _as_mnist(ink: np.ndarray) -> np.ndarray:
    """The cropped digit fitted into 20x20, its pen as wide as MNIST's, centred by mass; uint8 (28, 28)."""
    height, width = ink.shape
    ink = _pen(ink)
    grown = (ink.shape[0] - height, ink.shape[1] - width)
    ratio = 20 / max(height + grown[0], width + grown[1])
    size = (max(1, round(ink.shape[1] * ratio)), max(1, round(ink.shape[0] * ratio)))
    fitted = Image.fromarray((ink * 255).astype(np.uint8)).resize(
        size, Image.Resampling.BOX if ratio < 0.5 else Image.Resampling.BILINEAR
    )
    pixels = np.asarray(fitted, np.float32)
    peak = float(np.partition(pixels, -5, axis=None)[-5]) if pixels.size >= 5 else float(pixels.max())
    pixels = np.minimum(pixels * (255 / max(peak, 1)), 255)
    total = float(pixels.sum())
    x = round(14 - 0.5 - float(pixels.sum(0) @ np.arange(size[0])) / total)
    y = round(14 - 0.5 - float(pixels.sum(1) @ np.arange(size[1])) / total)
    x, y = min(max(x, 0), 28 - size[0]), min(max(y, 0), 28 - size[1])
    image = np.zeros((28, 28), np.uint8)
    image[y : y + size[1], x : x + size[0]] = pixels.round()
    return image


def _pen(ink: np.ndarray) -> np.ndarray:
    """Strokes widened or narrowed where they are far from MNIST's; the widened crop grows with them."""
    area = float(ink.sum())
    # the length of an edge, twice a stroke's: where neighbours differ
    edge = float(
        np.abs(np.diff(ink, axis=0, prepend=0, append=0)).sum()
        + np.abs(np.diff(ink, axis=1, prepend=0, append=0)).sum()
    )
    pixel = max(ink.shape) / 20
    # a slanting edge counts up to 1.4 times its length both ways, 1.27 on the average
    wide = 2 * 1.27 * area / max(edge, 1e-6) / pixel
    picture = Image.fromarray((ink * 255).astype(np.uint8))
    if wide < THINNEST:
        grow = round((THINNEST - wide) * pixel / 2)
        if grow:
            picture = ImageOps.expand(picture, grow).filter(ImageFilter.MaxFilter(2 * grow + 1))
            return np.asarray(picture, np.float32) / 255
    elif wide > THICKEST:
        shrink = round((wide - THICKEST) * pixel / 2)
        if shrink:
            thin = np.asarray(picture.filter(ImageFilter.MinFilter(2 * shrink + 1)), np.float32) / 255
            # never take a digit away
            if thin.sum() > 0.2 * area:
                return thin
    return ink
