"""Measures the accuracy on pictures of digits by kind, and how well pictures without a digit are distinguished
from them. `make eval` prints the tables. The pictures are made here, in singles.py and in outliers.py, and depend
only on the seed. They are prepared and classified as in the service. An answer is sure if its probability is at
least the model card's sure_threshold.

mnist: test images in other sizes, places and polarities, on different paper. uci: 1,797 digits by 43 other people
(Alpaydin and Kaynak 1998, from scikit-learn; only 8x8 pixels). uci_placed: the same, enlarged to 24 to 200 pixels
and placed on a larger plain background. strokes: synthetic digits with many stroke widths. fonts: printed digits.
handwriting: digits of handwriting fonts that training does not use.
cells: test images in forms and tables, cut inside, on and outside the line.

    python benchmarks/evaluate.py --cases FOLDER     # your own pictures, with a cases.tsv: file, tab, digits
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numerals_strings import ROOT, Digits
from outliers import KINDS as OUTLIERS
from paper import CUTS, cell, photograph, placed, png, write
from PIL import Image, ImageDraw, ImageFont
from singles import KINDS as SINGLES
from singles import Single, made, uci_digits

from digits.detector import Detector
from digits.imaging import PictureError, prepare
from digits.imaging.find import Locate
from digits.model import Classifier, load, scale
from digits.reading.search import locate
from digits.training.hands import hands
from digits.training.measures import auroc, calibration_error, reliability
from digits.training.synthetic import smooth_digit

Labelled = Iterator[tuple[Image.Image, int]]
# whether a picture's ink is darker than its paper, and whether the answer is right, sure, and a refusal
Answer = tuple[bool, bool, bool, bool]
Photographed = Callable[[Image.Image, bool, np.random.Generator], bytes]
# pixels of the longer side; the last one is the service's limit
SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 10_000)


def mnist(count: int, rng: np.random.Generator) -> Labelled:
    """MNIST's test images, bright on black."""
    digits = Digits()
    for i in rng.permutation(len(digits.images))[:count]:
        yield Image.fromarray(digits.images[i]), int(digits.labels[i])


def uci(count: int, rng: np.random.Generator) -> Labelled:
    """The UCI digits, 8x8, bright on black."""
    images, labels = uci_digits()
    for i in rng.permutation(len(images))[:count]:
        # smooth the enlarged image, because eight pixels would look like stairs
        yield Image.fromarray(images[i]).resize((64, 64), Image.Resampling.BICUBIC), int(labels[i])


def strokes(count: int, rng: np.random.Generator) -> Labelled:
    """Synthetic digits with very thin to very thick strokes, bright on black."""
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
    """Printed digits in the installed fonts, slightly rotated and slanted."""
    files = [file for file in sorted(Path("/usr/share/fonts").rglob("*.ttf")) if has_digits(file)]
    for _ in range(count):
        label, size = int(rng.integers(10)), int(rng.integers(40, 200))
        pick = int(rng.integers(len(files) + 1))
        font = ImageFont.truetype(files[pick], size) if pick < len(files) else ImageFont.load_default(size)
        picture = Image.new("L", (2 * size, 2 * size))
        ImageDraw.Draw(picture).text((size, size), str(label), 255, font, anchor="mm")
        yield slanted(picture, rng), label


def handwriting(count: int, rng: np.random.Generator) -> Labelled:
    """Digits of handwriting fonts that training does not use, slightly rotated and slanted."""
    every = hands(held_out=True)
    for _ in range(count):
        label, side = int(rng.integers(10)), int(rng.integers(80, 400))
        glyph = Image.fromarray(every[rng.integers(len(every))][str(label)])
        yield slanted(glyph.resize((side, side), Image.Resampling.BICUBIC), rng), label


def slanted(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture slightly slanted and rotated, and cropped to its ink."""
    slant = rng.uniform(-0.2, 0.2)
    across = (1, slant, -slant * picture.height / 2, 0, 1, 0)
    picture = picture.transform(picture.size, Image.Transform.AFFINE, across)
    picture = picture.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    return picture.crop(picture.getbbox())


def has_digits(file: Path) -> bool:
    """Whether a font has ten different digits. Symbol fonts show the same box for each."""
    font = ImageFont.truetype(file, 40)
    return len({bytes(font.getmask(str(digit))) for digit in range(10)}) == 10


@cache
def locator() -> Locate:
    """What finds a digit that does not stand out clearly, as in the service."""
    return partial(locate, Detector(load(ROOT / "models" / "detector.h5")))


def read(classifier: Classifier, picture: bytes) -> tuple[int, float]:
    """The predicted digit and its probability, or -1 and 0 if the picture is refused."""
    try:
        image = prepare([picture], ["image"], locate=locator())
    except PictureError:
        return -1, 0.0
    probabilities = classifier.probabilities(scale(image))
    return int(probabilities.argmax()), float(probabilities.max())


# the kinds whose pictures have both polarities: what draws their ink, and what photographs it
BOTH: dict[str, tuple[Callable[[int, np.random.Generator], Labelled], Photographed]] = {
    "mnist": (mnist, photograph),
    "uci": (uci, photograph),
    "uci_placed": (uci, placed),
    "strokes": (strokes, photograph),
    "fonts": (fonts, photograph),
    "handwriting": (handwriting, photograph),
    **{f"cells_{cut}": (mnist, partial(cell, cut=cut)) for cut in CUTS},
}


def in_both_polarities(name: str, count: int) -> Iterator[Single]:
    """Pictures of one of these kinds."""
    kind, photographed = BOTH[name]
    rng = np.random.default_rng(11)
    for ink, label in kind(count, rng):
        seed = int(rng.integers(1 << 31))
        for dark in (True, False):
            yield Single(photographed(ink, dark, np.random.default_rng(seed)), label, dark)


def pictures(count: int, newer: int) -> dict[str, Iterator[Single]]:
    """Pictures of each kind, without those that need MNIST if there is none: `count` digits in both polarities, or
    `newer` pictures of a kind in singles.py."""
    if "MNIST_NPZ" not in os.environ:
        return {name: in_both_polarities(name, count) for name in BOTH if BOTH[name][0] is not mnist}
    digits = Digits()
    both = {name: in_both_polarities(name, count) for name in BOTH}
    return both | {name: made(name, newer, digits) for name in SINGLES}


def size_of(picture: bytes) -> int | None:
    """The first of SIZES that the longer side of a picture doesn't exceed; None if Pillow can't open it."""
    try:
        with Image.open(BytesIO(picture)) as opened:
            return next(size for size in SIZES if max(opened.size) <= size)
    except OSError:
        return None


def print_row(name: str, answers: list[Answer]) -> None:
    """Print a row of the table."""
    dark, right, sure, refused = np.array(answers, bool).reshape(-1, 4).T
    columns = [right, right[dark], right[~dark], sure, sure & ~right, refused]
    shares = [f"{column.mean():.2%}" if len(column) else "-" for column in columns]
    print(f"| {name} | {len(answers)} | {' | '.join(shares)} |", flush=True)


def evaluate_pictures(
    classifier: Classifier, threshold: float, kinds: dict[str, Iterator[Single]], keep: Path | None
) -> None:
    """Print the fractions of each kind's pictures that are read correctly, by polarity, and that are sure, sure
    and wrong, and refused; then the same by the size of the picture, for all that people send."""
    sizes: dict[int | None, list[Answer]] = {}
    print("| kind | pictures | right | dark on light | light on dark | sure | sure and wrong | refused |")
    print("|---|---|---|---|---|---|---|---|")
    for name, singles in kinds.items():
        by_sub: dict[str, list[Answer]] = {}
        for number, single in enumerate(singles):
            found, probability = read(classifier, single.file)
            right, sure = found == single.label, probability >= threshold
            answer = single.dark, right, sure, found < 0
            by_sub.setdefault(single.sub, []).append(answer)
            if name != "other files":
                sizes.setdefault(size_of(single.file), []).append(answer)
            if keep and not right:
                polarity = "dark" if single.dark else "light"
                write(keep, f"{name}-{number}-{polarity}-{single.label}-as-{found}", single.file)
        print_row(name, [answer for answers in by_sub.values() for answer in answers])
        for sub in by_sub if len(by_sub) > 1 else ():
            print_row(f"{name}: {sub}", by_sub[sub])
    for size in SIZES:
        if size in sizes:
            print_row(f"up to {size} pixels", sizes[size])


def evaluate_mnist(classifier: Classifier, threshold: float) -> np.ndarray:
    """Print the results for MNIST's test images, and return their largest probabilities when sent as pixels."""
    digits = Digits()
    probabilities = classifier.probabilities(scale(digits.images))
    pictures = np.array([read(classifier, png(Image.fromarray(image))) for image in digits.images])
    for name, found, largest in (
        ("pixels", probabilities.argmax(1), probabilities.max(1)),
        ("PNG", pictures[:, 0], pictures[:, 1]),
    ):
        right, sure = found == digits.labels, largest >= threshold
        print(
            f"MNIST's 10,000 test images as {name}: {right.mean():.2%} right, {sure.mean():.2%} sure, "
            f"{(sure & ~right).mean():.2%} sure and wrong, calibration error "
            f"{calibration_error(reliability(largest, right)):.4f}",
            flush=True,
        )
    return probabilities.max(1)


def evaluate_outliers(classifier: Classifier, threshold: float, count: int, digits: np.ndarray) -> None:
    """Print the AUROC of each kind of outlier against MNIST's test digits, and the fraction that is sure.

    digits: the largest probabilities of the test digits.
    """
    print("| no digit | AUROC | sure | refused |\n|---|---|---|---|")
    for kind in OUTLIERS:
        answers = [read(classifier, png(picture)) for picture in kind(count, np.random.default_rng(11))]
        if not answers:
            print(f"| {kind.__name__} | none could be made | | |")
            continue
        largest = np.array([probability for _, probability in answers])
        # refused pictures count as unsure with probability 0
        shares = (largest >= threshold).mean(), np.mean([found < 0 for found, _ in answers])
        cells = [f"{auroc(digits, largest):.4f}", *(f"{share:.2%}" for share in shares)]
        print(f"| {kind.__name__} | {' | '.join(cells)} |", flush=True)


def print_cases(classifier: Classifier, threshold: float, folder: Path) -> None:
    """Print the result for each picture in the folder's cases.tsv."""
    print("| picture | shows | read as | probability | |\n|---|---|---|---|---|")
    for line in (folder / "cases.tsv").read_text().splitlines():
        name, _, digits = line.partition("\t")
        found, probability = read(classifier, (folder / name).read_bytes())
        word = "refused" if found < 0 else "sure" if probability >= threshold else "unsure"
        print(
            f"| {name} | {digits.replace('|', ' / ') or 'no digit'} | {found} | {probability:.3f} | {word} |"
        )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--n", type=int, default=1500, help="pictures of each kind, and a third of it of newer kinds"
    )
    every = list(pictures(0, 0))
    parser.add_argument("--kinds", nargs="+", choices=every, help="only these, and no other measurement")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "mnist.h5")
    parser.add_argument("--keep", type=Path, help="write what was misread there")
    parser.add_argument("--cases", type=Path, help="read this folder's pictures and nothing else")
    args = parser.parse_args()
    model = load(args.model)
    classifier, threshold = Classifier(model), model.card.get("sure_threshold", 0.5)
    if args.cases:
        print_cases(classifier, threshold, args.cases)
        return
    print(
        f"model {classifier.version}, {args.n} pictures of each kind, seed 11, sure from {threshold:.4f} on"
    )
    kinds = pictures(args.n, args.n // 3)
    evaluate_pictures(classifier, threshold, {name: kinds[name] for name in args.kinds or kinds}, args.keep)
    if args.kinds:
        return
    if "MNIST_NPZ" in os.environ:
        digits = evaluate_mnist(classifier, threshold)
        evaluate_outliers(classifier, threshold, args.n, digits)
    print_cost()


def print_cost() -> None:
    """Print how long preparing a picture takes."""
    drawn, _ = next(strokes(1, np.random.default_rng(3)))
    picture = Image.new("L", (280, 280))
    picture.paste(drawn.resize((140, 200)), (70, 40))
    content = png(picture)
    times = []
    for _ in range(300):
        begun = time.perf_counter()
        prepare([content], ["image"], locate=locator())
        times.append(time.perf_counter() - begun)
    print(f"Preparing a 280x280 PNG: {np.median(times) * 1000:.2f} ms (median)")


if __name__ == "__main__":
    main()
