"""How well pictures of digits are read, by kind of picture: `make eval` prints the table. The pictures are
made here, by seed, from handwriting and drawings that are at hand; each is prepared and classified as by
the service.

mnist: test images in other sizes, places, papers, polarities. uci: 1,797 digits by 43 other people (Alpaydin and
Kaynak 1998, the copy in scikit-learn; only 8x8 pixels). strokes: drawn with pens of many widths. fonts: printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from digits.imaging import PictureError, prepare  # noqa: E402
from digits.model import Classifier, load  # noqa: E402
from digits.training.synthetic import smooth_digit  # noqa: E402

Labelled = Iterator[tuple[Image.Image, int]]


def mnist(count: int, rng: np.random.Generator) -> Labelled:
    """MNIST's test images, bright on black, as they are."""
    with np.load(os.environ["MNIST_NPZ"]) as file:
        images, labels = file["x_test"], file["y_test"]
    for i in rng.permutation(len(images))[:count]:
        yield Image.fromarray(images[i]), int(labels[i])


def uci(count: int, rng: np.random.Generator) -> Labelled:
    """The UCI digits, 8x8, bright on black."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for i in rng.permutation(len(bunch.images))[:count]:
        grey = (bunch.images[i] * (255 / 16)).astype(np.uint8)
        # eight pixels make stairs; smoothly enlarged they are strokes again
        yield Image.fromarray(grey).resize((64, 64), Image.Resampling.BICUBIC), int(bunch.target[i])


def strokes(count: int, rng: np.random.Generator) -> Labelled:
    """Digits drawn with pens from very thin to very thick, bright on black."""
    for _ in range(count):
        label = int(rng.integers(10))
        height = int(rng.integers(60, 300))
        lines = smooth_digit(label, rng)
        low = np.min([line.min(0) for line in lines], axis=0)
        high = np.max([line.max(0) for line in lines], axis=0)
        pen = max(1.5, height * rng.uniform(0.02, 0.2))
        size = ((high - low) * height + pen + 4).astype(int)
        picture = Image.new("L", (int(size[0]), int(size[1])))
        draw = ImageDraw.Draw(picture)
        for line in lines:
            for x, y in (line - low) * height + pen / 2 + 2:
                draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
        yield picture, label


def fonts(count: int, rng: np.random.Generator) -> Labelled:
    """Printed digits in the fonts at hand, turned and slanted a little."""
    files = sorted(Path("/usr/share/fonts").rglob("*.ttf"))
    for _ in range(count):
        label, size = int(rng.integers(10)), int(rng.integers(40, 200))
        pick = int(rng.integers(len(files) + 1))
        font = ImageFont.truetype(files[pick], size) if pick < len(files) else ImageFont.load_default(size)
        picture = Image.new("L", (2 * size, 2 * size))
        ImageDraw.Draw(picture).text((size, size), str(label), 255, font, anchor="mm")
        slant = rng.uniform(-0.2, 0.2)
        picture = picture.transform(picture.size, Image.Transform.AFFINE, (1, slant, -slant * size, 0, 1, 0))
        picture = picture.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
        yield picture.crop(picture.getbbox()), label


def photograph(ink: Image.Image, dark: bool, rng: np.random.Generator) -> bytes:
    """The digit somewhere on paper of its own brightness, with shadow, noise, blur; a PNG or a JPEG. One in five
    fills its picture.

    dark: dark ink on light paper, else the reverse.
    """
    height = int(rng.integers(24, 320))
    ink = ink.resize((max(1, ink.width * height // ink.height), height), Image.Resampling.BICUBIC)
    room = rng.uniform(0.05, 1.5, 4) * max(ink.size) * (rng.random() < 0.8)
    width, tall = int(ink.width + room[0] + room[1]), int(ink.height + room[2] + room[3])
    canvas = np.zeros((tall, width), np.float32)
    x, y = int(room[0]), int(room[2])
    canvas[y : y + ink.height, x : x + ink.width] = np.asarray(ink, np.float32) / 255
    paper, pen = (
        (rng.uniform(200, 255), rng.uniform(0, 90)) if dark else (rng.uniform(0, 50), rng.uniform(150, 255))
    )
    shade = 1 - rng.uniform(0, 0.35) * np.linspace(0, 1, width)[None, :] if rng.random() < 0.4 else 1.0
    grey = (paper + (pen - paper) * canvas) * shade
    if rng.random() < 0.4:
        grey = grey + rng.normal(0, rng.uniform(1, 8), grey.shape)
    picture = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, height / 60)))
    file = BytesIO()
    if rng.random() < 0.3:
        picture.convert("RGB").save(file, "JPEG", quality=int(rng.integers(40, 95)))
    else:
        picture.save(file, "PNG")
    return file.getvalue()


def read(classifier: Classifier, picture: bytes) -> int:
    """The digit found, or -1 where the picture was refused."""
    try:
        image = prepare([picture], ["image"])
    except PictureError:
        return -1
    return int(classifier.probabilities(image.reshape(1, 28, 28, 1) / np.float32(255)).argmax())


def main() -> None:
    """Print the share read rightly of each kind and polarity, and what preparing costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1500, help="pictures of each kind")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "mnist.h5")
    parser.add_argument("--keep", type=Path, help="write what was misread there")
    args = parser.parse_args()
    classifier = Classifier(load(args.model))
    print(f"model {classifier.version}, {args.count} pictures of each kind, seed 11")
    print("| kind | dark on light | light on dark |\n|---|---|---|")
    kinds = [uci, strokes, fonts] if "MNIST_NPZ" not in os.environ else [mnist, uci, strokes, fonts]
    for kind in kinds:
        right = {True: 0, False: 0}
        seen = 0
        rng = np.random.default_rng(11)
        for number, (ink, label) in enumerate(kind(args.count, rng)):
            seen += 1
            seed = int(rng.integers(1 << 31))
            for dark in (True, False):
                picture = photograph(ink, dark, np.random.default_rng(seed))
                found = read(classifier, picture)
                right[dark] += found == label
                if args.keep and found != label:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    name = f"{kind.__name__}-{number}-{'dark' if dark else 'light'}-{label}-as-{found}"
                    name += ".jpg" if picture.startswith(b"\xff") else ".png"
                    (args.keep / name).write_bytes(picture)
        print(f"| {kind.__name__} | {right[True] / seen:.2%} | {right[False] / seen:.2%} |", flush=True)
    if "MNIST_NPZ" in os.environ:
        with np.load(os.environ["MNIST_NPZ"]) as file:
            images, labels = file["x_test"], file["y_test"]
        pixels = classifier.probabilities(images[..., None] / np.float32(255)).argmax(1)
        pngs = []
        for image in images:
            buffer = BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            pngs.append(read(classifier, buffer.getvalue()))
        a, b = float((pixels == labels).mean()), float((np.array(pngs) == labels).mean())
        print(f"MNIST's 10,000 test images: as pixels {a:.2%}, as PNG {b:.2%}")
    drawn, _ = next(strokes(1, np.random.default_rng(3)))
    picture = Image.new("L", (280, 280))
    picture.paste(drawn.resize((140, 200)), (70, 40))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    times = []
    for _ in range(300):
        begun = time.perf_counter()
        prepare([buffer.getvalue()], ["image"])
        times.append(time.perf_counter() - begun)
    print(f"Preparing a 280x280 PNG: {np.median(times) * 1000:.2f} ms (median)")


if __name__ == "__main__":
    main()
