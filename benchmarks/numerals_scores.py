"""Says how well the lines that a reader found agree with those that a picture shows. A shown line whose words are
parted by a space, such as "14 09" for 14.09, must be found as these words. Spaces in other lines don't count, as
in "12 kg 5", which shows 125. The cells of a table are found by their places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# x, y, width, height in pixels
Box = tuple[float, float, float, float]
# a text and where it stands
Placed = tuple[str, Box]


@dataclass(frozen=True)
class Picture:
    """A picture's file and what it shows.

    lines: its lines of digits from top to bottom. cells: those of a table, which then has no lines. sub: the kind
    within its kind.
    """

    file: bytes
    lines: Sequence[str] = ()
    cells: Sequence[Placed] = ()
    sub: str = ""


@dataclass(frozen=True)
class Found:
    """A line that was read. words: its parts and their places."""

    text: str
    sure: bool
    words: Sequence[Placed]


@dataclass(frozen=True)
class Score:
    """What came out for a picture: whether all was found and nothing else; the shown lines or cells, and how many
    of these were found; the found lines, and how many were sure, and sure and wrong."""

    whole: bool
    shown: int
    right: int
    found: int
    sure: int
    sure_and_wrong: int


def score(picture: Picture, found: Sequence[Found]) -> Score:
    """Compare the lines that were found with the picture's."""
    if picture.cells:
        words = [word for line in found for word in line.words]
        inside = [[text for text, box in words if holds(cell, box)] for _, cell in picture.cells]
        correct = [texts == [text] for texts, (text, _) in zip(inside, picture.cells, strict=True)]
        right, shown = sum(correct), len(picture.cells)
        whole = right == shown == len(words)
        fits = [all(_in_its_cell(word, picture.cells) for word in line.words) for line in found]
    else:
        texts, shown = [line.text for line in found], len(picture.lines)
        fits = [_is_shown(text, texts, picture.lines) for text in texts]
        if any(" " in line for line in picture.lines):
            # parts of a line may be lines of their own
            whole = " ".join(texts).split() == " ".join(picture.lines).split()
        else:
            texts = [bare(text) for text in texts]
            whole = texts == list(picture.lines)
        right = shown if whole else sum((Counter(texts) & Counter(picture.lines)).values())
    sure = [line.sure for line in found]
    both = sum(is_sure and not fit for is_sure, fit in zip(sure, fits, strict=True))
    return Score(whole, shown, right, len(found), sum(sure), both)


def bare(text: str) -> str:
    """The text without its spaces."""
    return text.replace(" ", "")


def holds(cell: Box, box: Box) -> bool:
    """Whether the middle of a box lies in a cell."""
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    return cell[0] <= x <= cell[0] + cell[2] and cell[1] <= y <= cell[1] + cell[3]


def _in_its_cell(word: Placed, cells: Sequence[Placed]) -> bool:
    return any(text == word[0] and holds(cell, word[1]) for text, cell in cells)


def _is_shown(text: str, texts: Sequence[str], lines: Sequence[str]) -> bool:
    """Whether a found line is a shown one, or a part of one whose other words were found as well."""
    words, all_words = text.split(), Counter(" ".join(texts).split())
    for line in lines:
        asked = line.split()
        if len(asked) == 1:
            if bare(text) == line:
                return True
            continue
        starts = range(len(asked) - len(words) + 1)
        if any(asked[i : i + len(words)] == words for i in starts) and not Counter(asked) - all_words:
            return True
    return False
