"""Measures how well numbers are read, by kind of picture. `make eval` prints the table. The pictures depend only
on the seed, and are made from MNIST's test digits (MNIST_NPZ) and pen strokes by the other numerals_*.py. No
training data is used.

    python benchmarks/numerals.py --kinds spaced boxes --n 100 --keep tmp/misread
    python benchmarks/numerals.py --cases FOLDER   # your own pictures; cases.tsv: file, tab, lines separated by |
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numerals_blank import blank, handwriting, names, words
from numerals_pages import sheets, tables
from numerals_pens import decimals, fractions, minus, pens, sevens, stacked
from numerals_scores import Found, Picture, Score, bare, score
from numerals_strings import KINDS as STRINGS
from numerals_strings import ROOT, Digits, Made, Rng
from paper import photograph, write
from PIL import Image

from digits.detector import Detector
from digits.imaging import PictureError
from digits.model import load
from digits.reading import read

SEED = 11
Reader = Callable[[bytes], list[Found]]
Kind = Callable[[Digits, Rng, int], Picture]


def photographed(makers: dict[str, Callable[[Digits, Rng], Made]]) -> Kind:
    """A kind of which each sort in turns is laid on paper by benchmarks/paper.py, half of it dark on light."""

    def make(digits: Digits, rng: Rng, index: int) -> Picture:
        name, maker = list(makers.items())[index % len(makers)]
        ink, lines = maker(digits, rng)
        file = photograph(Image.fromarray(ink), index // len(makers) % 2 == 0, rng)
        return Picture(file, lines, sub=name if len(makers) > 1 else "")

    return make


KINDS: dict[str, Kind] = {
    "pens": photographed({"pens": pens}),
    "sevens": photographed({"sevens": sevens}),
    "tables": tables,
    "decimals": photographed(
        {"decimal": decimals, "fraction": fractions, "stacked fraction": stacked, "minus": minus}
    ),
    "sheets": sheets,
    "blank": blank,
    # these need the pipeline's fonts
    "words": words,
    "names": names,
}
NEED_FONTS = ("words", "names")


def made(kind: str, count: int, digits: Digits) -> Iterator[Picture]:
    """Pictures of a kind. Fewer of them are the same as the first of more."""
    if kind in STRINGS:
        rng = np.random.default_rng([SEED, *kind.encode()])
        for index in range(count):
            ink, lines = STRINGS[kind](digits, rng)
            yield Picture(photograph(Image.fromarray(ink), index % 2 == 0, rng, len(lines)), lines)
        return
    for index in range(count):
        yield KINDS[kind](digits, np.random.default_rng([SEED, *kind.encode(), index]), index)


def reader(detector: Detector) -> Reader:
    """Reads a picture as POST /read does. A refused picture has no lines."""

    def lines_of(picture: bytes) -> list[Found]:
        try:
            lines = read(picture, "image", detector).lines
        except PictureError:
            return []
        return [Found(each.text, not each.unsure, [(w.text, w.box) for w in each.words]) for each in lines]

    return lines_of


COLUMNS = ["kind", "n", "wholly right", "lines right", "sure", "sure and wrong", "no sure wrong line"]
COLUMNS += ["CPU ms", "at most"]


def row_of(kind: str, scores: list[Score], times: list[float]) -> dict[str, Any]:
    """A row of the table, with shares in [0, 1] and CPU times in milliseconds."""
    total = {name: sum(getattr(each, name) for each in scores) for name in Score.__annotations__}
    found = max(1, total["found"])
    shares = [
        total["whole"] / len(scores),
        total["right"] / total["shown"] if total["shown"] else None,
        total["sure"] / found,
        total["sure_and_wrong"] / found,
        sum(not each.sure_and_wrong for each in scores) / len(scores),
    ]
    spent = round(float(np.mean(times))), round(max(times))
    return dict(zip(COLUMNS, [kind, len(scores), *shares, *spent], strict=True))


def evaluate(
    read_lines: Reader, digits: Digits, count: int, kinds: list[str], keep: Path | None
) -> list[dict[str, Any]]:
    """Read pictures of each kind, print the table, and return its rows."""
    rows = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for kind in kinds:
        results: list[tuple[str, Score, float]] = []
        told = time.monotonic()
        for number, picture in enumerate(made(kind, count, digits)):
            begun = time.process_time()
            found = read_lines(picture.file)
            spent = (time.process_time() - begun) * 1000
            result = score(picture, found)
            results.append((picture.sub, result, spent))
            if keep and (result.sure_and_wrong or not result.whole):
                shown = "_".join([*picture.lines, *(text for text, _ in picture.cells)]) or "nothing"
                texts = "_".join(line.text + "!" * line.sure for line in found[:6]) or "nothing"
                write(keep, f"{kind}-{number}-{shown}-as-{texts[:80]}", picture.file)
            if time.monotonic() - told > 15:
                told = time.monotonic()
                print(f"{kind}: {number + 1} of {count}", file=sys.stderr, flush=True)
        subs = list(dict.fromkeys(sub for sub, _, _ in results))
        for sub in ["", *subs] if len(subs) > 1 else [""]:
            part = [(result, spent) for name, result, spent in results if sub in ("", name)]
            scores, times = zip(*part, strict=True)
            rows.append(row_of(f"{kind}: {sub}" if sub else kind, list(scores), list(times)))
            cells = (f"{cell:.1%}" if isinstance(cell, float) else cell for cell in rows[-1].values())
            print("|", " | ".join("-" if cell is None else str(cell) for cell in cells), "|", flush=True)
    return rows


def print_cases(read_lines: Reader, folder: Path) -> None:
    """Print the reading of each picture in the folder's cases.tsv, and how many are right. Spaces don't count,
    because the cells of tables run together there."""
    print("| picture | shows | read as | | CPU ms |\n|---|---|---|---|---|")
    right, with_digits, read_in_blank, wrongly_sure = 0, 0, 0, 0
    for row in (folder / "cases.tsv").read_text().splitlines():
        name, _, shows = row.partition("\t")
        lines = shows.split("|") if shows else []
        begun = time.process_time()
        found = read_lines((folder / name).read_bytes())
        spent = (time.process_time() - begun) * 1000
        result = score(Picture(b"", [bare(line) for line in lines]), found)
        word = "sure and wrong" if result.sure_and_wrong else "" if result.whole else "wrong"
        right += bool(lines) and result.whole
        with_digits += bool(lines)
        read_in_blank += not lines and bool(found)
        wrongly_sure += bool(result.sure_and_wrong)
        texts = [" / ".join(each) or "-" for each in (lines, [line.text for line in found])]
        print(f"| {name} | {' | '.join(texts)} | {word} | {spent:.0f} |", flush=True)
    print(
        f"{right} of {with_digits} with digits wholly right; {read_in_blank} without digits in which some are "
        f"read; {wrongly_sure} with a line that is sure and wrong"
    )


def main() -> None:
    """Print the table, or the readings of a folder's pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*STRINGS, *KINDS]
    parser.add_argument("--n", type=int, default=500, help="pictures of each kind")
    parser.add_argument("--kinds", nargs="+", choices=every, default=every)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "detector.h5")
    parser.add_argument("--keep", type=Path, help="write what was misread there")
    parser.add_argument("--cases", type=Path, help="read this folder's pictures and nothing else")
    args = parser.parse_args()
    detector = Detector(load(args.model))
    if args.cases:
        print_cases(reader(detector), args.cases)
        return
    print(f"model {detector.version}, {args.n} pictures of each kind, seed {SEED}")
    kinds = [kind for kind in args.kinds if handwriting() or kind not in NEED_FONTS]
    evaluate(reader(detector), Digits(), args.n, kinds, args.keep)
    if kinds != args.kinds:
        print(f"{' and '.join(NEED_FONTS)} are left out. They need fonts: run `dvc repro downloads`.")


if __name__ == "__main__":
    main()
