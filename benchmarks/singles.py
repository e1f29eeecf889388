"""Makes pictures of one digit as people send them: small files without a margin, large photos in uneven light,
sheets on a patterned ground, coloured ink on coloured paper, styles that MNIST lacks, and files of every format,
mode and depth. The digits are MNIST's test digits or the pen's; training uses neither them nor this code. Each
picture depends only on its kind, its number and the seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from numerals_pages import cloth, file_of, folded, on_a_table, wood
from numerals_pens import CROSSED, Pen, written
from numerals_strings import Digits, Rng, scaled
from paper import photograph, png
from PIL import Image

SEED = 11


@dataclass(frozen=True)
class Single:
    """A picture of one digit. dark: whether its ink is darker than its paper. sub: the kind within its kind."""

    file: bytes
    label: int
    dark: bool = True
    sub: str = ""


# makes the picture with this number
Kind = Callable[[Digits, Rng, int], Single]


def framed(image: np.ndarray, height: int, width: int, x: int, y: int) -> np.ndarray:
    """The image at a place of a black picture."""
    sheet = np.zeros((height, width), np.uint8)
    sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet


def ink_of(digits: Digits, rng: Rng, height: int) -> tuple[np.ndarray, int]:
    """A digit of MNIST, or one in five times the pen's, uint8 of this height, and its label."""
    if rng.random() < 0.8:
        image, label = digits.draw(rng)
    else:
        label = int(rng.integers(10))
        image, _ = Pen(rng, min(height, 120)).draw(str(label))
    return scaled(image, height / image.shape[0]), label


@cache
def uci_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, uint8 (n, 8, 8), bright on black, and their labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images * (255 / 16)).astype(np.uint8), bunch.target


def native(digits: Digits, rng: Rng, index: int) -> Single:
    """Small files that the digit fills: UCI's 8x8 digits, and MNIST's with 12, 16 and 28 pixels to a side."""
    side, dark = (8, 12, 16, 28)[index % 4], index // 4 % 2 == 0
    if side == 8:
        images, labels = uci_digits()
        i = int(rng.integers(len(images)))
        image, label = images[i], int(labels[i])
    else:
        image, label = digits.draw(rng)
        image = scaled(image, side / max(image.shape))
        height, width = image.shape
        image = framed(image, side, side, (side - width) // 2, (side - height) // 2)
    return Single(png(Image.fromarray(255 - image if dark else image)), label, dark, f"{side}x{side}")


SIZES = [(900, 1200), (1200, 900), (1500, 2000), (3000, 4000)]
STRENGTHS = (10, 20, 30, 40, 50)


def photos(digits: Digits, rng: Rng, index: int) -> Single:
    """A photo of 900x1200 to 3000x4000 pixels with a gradient, or a soft or hard shadow of 10 to 50 %."""
    height, width = SIZES[rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])]
    ink, label = ink_of(digits, rng, int(height * rng.uniform(0.12, 0.45)))
    ink = ink[:, : width - 1]
    x, y = (
        int((room - size) * rng.uniform(0.1, 0.9))
        for room, size in zip((width, height), ink.shape[::-1], strict=True)
    )
    way = index % (1 + 2 * len(STRENGTHS))
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    far = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    if way == 0:
        light, sub = 1 - rng.uniform(0.2, 0.6) * (far - far.min()) / np.ptp(far), "gradient"
    else:
        strength, soft = STRENGTHS[(way - 1) % len(STRENGTHS)], way > len(STRENGTHS)
        # the edge passes through the digit or beside it
        place = x + ink.shape[1] * rng.uniform(-1, 2), y + ink.shape[0] * rng.uniform(-1, 2)
        edge = place[0] * np.cos(angle) + place[1] * np.sin(angle)
        wide = height * rng.uniform(0.03, 0.15) if soft else rng.uniform(1, 4)
        light = 1 - strength / 100 * np.clip((far - edge) / wide + 0.5, 0, 1)
        sub = f"{'soft' if soft else 'hard'} shadow, {strength} %"
    paper, pen = rng.uniform(170, 250), rng.uniform(20, 90)
    grey = (paper + (pen - paper) * (framed(ink, height, width, x, y) / np.float32(255))) * light
    grey += rng.normal(0, rng.uniform(0.5, 4), grey.shape).astype(np.float32)
    return Single(file_of(grey, rng), label, sub=sub)


def grounds(digits: Digits, rng: Rng, index: int) -> Single:
    """A sheet on patterned cloth or on wood, or folded paper."""
    ink, label = ink_of(digits, rng, int(rng.integers(80, 260)))
    room = (max(ink.shape) * rng.uniform(0.3, 1.2, 4)).astype(int)
    ink = np.pad(ink, (room[:2], room[2:]))
    sub = ("cloth", "wood", "folds")[index % 3]
    picture = (
        folded(ink, rng) if sub == "folds" else on_a_table(ink, rng, [cloth if sub == "cloth" else wood])
    )
    return Single(file_of(picture, rng), label, sub=sub)


def colours(digits: Digits, rng: Rng, index: int) -> Single:
    """Coloured ink on coloured paper, of different brightness or of nearly the same."""
    equal, weights = index % 2 == 0, np.array([0.299, 0.587, 0.114])
    while True:
        paper, pen = rng.uniform(20, 235, (2, 3))
        if equal:
            pen += weights @ (paper - pen) + rng.uniform(-4, 4)
        apart = abs(weights @ (paper - pen))
        if pen.min() >= 0 and pen.max() <= 255 and np.ptp(paper - pen) > 110 and (equal or apart > 50):
            break
    ink, label = ink_of(digits, rng, int(rng.integers(40, 240)))
    room = (max(ink.shape) * rng.uniform(0.2, 1, 4)).astype(int)
    cover = np.pad(ink, (room[:2], room[2:]))[..., None] / 255
    picture = paper + (pen - paper) * cover + rng.normal(0, rng.uniform(0, 4), (*cover.shape[:2], 3))
    dark = bool(weights @ pen < weights @ paper)
    return Single(file_of(picture, rng), label, dark, "equal brightness" if equal else "different brightness")


STYLES: dict[str, tuple[str, list[str]]] = {
    "crossed 7": ("7", CROSSED),
    "1 with a long upstroke": ("1", ["long upstroke"]),
    "1 with a foot": ("1", ["foot", "upstroke and foot"]),
    "open 4": ("4", ["open", "upright"]),
    "open 9": ("9", ["open"]),
    "looped 2": ("2", ["looped", "wide loop"]),
}


def styles(digits: Digits, rng: Rng, index: int) -> Single:
    """Pen-drawn digits in styles that MNIST lacks."""
    sub, (label, shapes) = list(STYLES.items())[index % len(STYLES)]
    ink = written(label, rng, 100, styles={label: shapes})
    dark = index // len(STYLES) % 2 == 0
    return Single(photograph(Image.fromarray(ink), dark, rng), int(label), dark, sub)


def strokes(digits: Digits, rng: Rng, index: int) -> Single:
    """Faint strokes, of a tenth to a quarter of the range of grey; and strokes broken by gaps."""
    ink, label = ink_of(digits, rng, int(rng.integers(40, 200)))
    room = (max(ink.shape) * rng.uniform(0.2, 1, 4)).astype(int)
    dark, sub = index // 2 % 2 == 0, ("faint", "broken")[index % 2]
    ink = np.pad(ink, (room[:2], room[2:])).astype(float)
    if sub == "broken":
        y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
        size = ink.shape[0] - room[0] - room[1]
        for _ in range(int(rng.integers(1, 3))):
            angle, place = rng.uniform(0, np.pi), room[[2, 0]] + size * rng.uniform(0.2, 0.8, 2)
            far = (x - place[0]) * np.cos(angle) + (y - place[1]) * np.sin(angle)
            ink[np.abs(far) < size * rng.uniform(0.02, 0.04)] = 0
        contrast, grain = rng.uniform(110, 220), rng.uniform(0, 5)
    else:
        contrast, grain = rng.uniform(25, 60), rng.uniform(0, 2)
    paper = rng.uniform(contrast, 255) if dark else rng.uniform(0, 255 - contrast)
    grey = paper + (-contrast if dark else contrast) * ink / 255 + rng.normal(0, grain, ink.shape)
    return Single(file_of(grey, rng), label, dark, sub)


def depths(digits: Digits, rng: Rng, index: int) -> Single:
    """PNG and TIFF files of 16 bits that use 9 to 16 of them."""
    bits, dark = 9 + index % 8, index // 8 % 2 == 0
    ink, label = ink_of(digits, rng, int(rng.integers(30, 160)))
    room = (max(ink.shape) * rng.uniform(0.2, 1, 4)).astype(int)
    grey = np.pad(ink, (room[:2], room[2:])) / 255 * rng.uniform(0.6, 0.95) + 0.02
    grey = np.clip((1 - grey if dark else grey) + rng.normal(0, 0.01, grey.shape), 0, 1)
    file = BytesIO()
    Image.fromarray((grey * (2**bits - 1)).astype(np.uint16)).save(file, "TIFF" if index // 16 % 2 else "PNG")
    return Single(file.getvalue(), label, dark, f"{bits} bits")


# formats of pictures that people send; Pillow writes others too
SENT = (
    "PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "PDF", "ICO", "JPEG2000", "MPO", "DIB", "PPM", "TGA",
)  # fmt: skip
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "F")
WIDE_MODES = {"I;16": np.uint16, "I;16B": ">u2", "I": np.int32}
# in other formats, Pillow writes modes of more than 8 bits as white
WIDE = ("PNG", "TIFF", "JPEG2000", "PPM", "IM", "SPIDER")


def file_in(picture: Image.Image, name: str, mode: str) -> bytes | None:
    """The file of a grey picture in a format and mode of Pillow's, or None if Pillow can't write that."""
    file = BytesIO()
    try:
        if mode in WIDE_MODES:
            picture = Image.fromarray((np.asarray(picture, np.uint16) * 257).astype(WIDE_MODES[mode]))
        elif mode == "1":
            picture = picture.convert("1", dither=Image.Dither.NONE)
        elif mode in ("PA", "LAB", "RGBX"):
            picture = picture.convert("P" if mode == "PA" else "RGB").convert(mode)
        else:
            picture = picture.convert(mode)
        with warnings.catch_warnings():
            # formats that Pillow is going to drop are left out
            warnings.simplefilter("error", DeprecationWarning)
            picture.save(file, name)
    except (OSError, ValueError, KeyError, TypeError, DeprecationWarning):
        return None
    return file.getvalue()


@cache
def written_by_pillow(sent: bool) -> list[tuple[str, str]]:
    """The formats and modes that Pillow writes: those that people send, or the others."""
    Image.init()
    names = [name for name in sorted(Image.SAVE) if (name in SENT) == sent]
    pairs = [(name, mode) for name in names for mode in (*MODES, *(WIDE_MODES if name in WIDE else ()))]
    return [pair for pair in pairs if file_in(Image.new("L", (64, 64), 200), *pair)]


def files(digits: Digits, rng: Rng, index: int, sent: bool = True) -> Single:
    """Files of the formats that people send, in each mode in which Pillow writes them."""
    pairs, dark = written_by_pillow(sent), rng.random() < 0.7
    # a stride, so that few pictures already have most formats
    name, mode = pairs[index * 37 % len(pairs)]
    ink, label = ink_of(digits, rng, int(rng.integers(60, 160)))
    ink = np.pad(ink, int(max(ink.shape) * rng.uniform(0.2, 0.4)))[:240, :240]
    tones = (235, 30) if dark else (15, 230)
    grey = (tones[0] + (tones[1] - tones[0]) * (ink / 255)).astype(np.uint8)
    file = file_in(Image.fromarray(grey), name, mode)
    assert file is not None, f"Pillow wrote no {name} in mode {mode}"
    return Single(file, label, dark, name)


def other_files(digits: Digits, rng: Rng, index: int) -> Single:
    """Files of all other formats that Pillow writes."""
    return files(digits, rng, index, sent=False)


KINDS: dict[str, Kind] = {
    "native": native,
    "photos": photos,
    "grounds": grounds,
    "colours": colours,
    "styles": styles,
    "faint and broken": strokes,
    "depths": depths,
    "files": files,
    "other files": other_files,
}


def made(kind: str, count: int, digits: Digits) -> Iterator[Single]:
    """Pictures of a kind. Fewer of them are the same as the first of more."""
    for index in range(count):
        yield KINDS[kind](digits, np.random.default_rng([SEED, *kind.encode(), index]), index)
