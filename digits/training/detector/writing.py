"""Writes lines on a sheet: strings of digits with gaps from wide to overlapping, words, amounts, dates and
sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from digits.training.detector.glyphs import LONE, PEN_LETTERS, PEN_SIGNS, Rng
from digits.training.detector.sheet import Hand, Point, Sheet

# letters by their frequency in English
VOWELS = "eeeeeaaaaaoooooiiiiuu"
CONSONANTS = "tttttnnnnnsssssrrrrrhhhhlllldddddccmmmffppgwwybbvkxqjz"
SHORT = ["kg", "km", "cm", "mm", "No", "Nr", "EUR", "USD", "max", "min", "Tel", "am", "pm", "and", "to", "of",
         "Mr", "st", "th", "kWh", "ml", "Date", "Name", "Total", "Sum", "Page", "ID"]  # fmt: skip
# gaps between digits in pixels for digits of 20 pixels, with their weights
GAPS = [
    ((1.0, 9.0), 0.24),
    ((-3.0, 4.0), 0.25),
    ((-4.0, -1.0), 0.26),
    ((-6.0, 2.0), 0.06),
    ((8.0, 24.0), 0.19),
]
# the forms of numbers: how many digits, at least and at most, and one of some characters
NUMBERS: list[Any] = [
    [(1, 3), ".,", (1, 3)],
    [(1, 3), "/", (1, 3)],
    ["-", (1, 4)],
    "date",
    [(1, 2), ":", (2, 2)],
    [(1, 3), "+-x=", (1, 3)],
    [(1, 2), "+", (1, 2), "=", (1, 3)],
    [(1, 3), "%"],
    ["(", (1, 4), ")"],
    [(1, 3), ".", (3, 3), ",", (2, 2)],
    [LONE, (1, 4)],
    [(1, 4), LONE],
    [(2, 4), "-", (2, 5)],
    [(1, 2), "/", (1, 2)],
    "mixed",
    "mixed",
    [(1, 2), ".)"],
]
GAP_SHARES = np.cumsum([weight for _, weight in GAPS])


def digits(rng: Rng, low: int, high: int) -> str:
    """So many random digits."""
    count = int(rng.integers(low, high + 1))
    return "".join(map(str, rng.integers(0, 10, count)))


def word(rng: Rng) -> str:
    """A word that could be English or a name: syllables, in small letters, capitalized or in capitals."""
    if rng.random() < 0.15:
        return SHORT[rng.integers(len(SHORT))]
    out = ""
    for _ in range(int(rng.integers(1, 5))):
        if rng.random() < 0.85:
            out += CONSONANTS[rng.integers(len(CONSONANTS))]
        out += VOWELS[rng.integers(len(VOWELS))]
        if rng.random() < 0.4:
            out += CONSONANTS[rng.integers(len(CONSONANTS))]
    pick = rng.random()
    out = out if len(out) > 1 else out + "n"
    return out.capitalize() if pick < 0.4 else out.upper() if pick < 0.55 else out


def number(rng: Rng) -> str:
    """A number with signs or letters: a decimal, fraction, amount, date, time, sum, percentage, telephone number,
    or digits with letters, units and signs between them."""
    form = NUMBERS[rng.integers(len(NUMBERS))]
    if form == "date":
        mark = str(rng.choice([".", "/", "-"]))
        return digits(rng, 1, 2) + mark + digits(rng, 1, 2) + mark + digits(rng, 2, 4)
    if form == "mixed":
        parts = [digits(rng, 1, 4) + between(rng) for _ in range(int(rng.integers(1, 4)))]
        return "".join(parts) + digits(rng, 0, 3)
    return "".join(
        part[rng.integers(len(part))] if isinstance(part, str) else digits(rng, *part) for part in form
    )


def between(rng: Rng) -> str:
    """A letter, a unit or a sign that stands between digits."""
    way = rng.random()
    if way < 0.3:
        return LONE[rng.integers(len(LONE))]
    return SHORT[rng.integers(len(SHORT))] if way < 0.6 else str(rng.choice(list("+=-/:x()%~")))


def gap(rng: Rng) -> tuple[float, float]:
    """The range of gaps in one string, in pixels for digits of 20 pixels."""
    return GAPS[int(np.searchsorted(GAP_SHARES, rng.random()))][0]


def write_string(
    sheet: Sheet, hand: Hand, text: str, at: Point, rng: Rng, gaps: tuple[float, float] | None = None
) -> float:
    """Write digits and signs, and return the right edge.

    Args:
        at: x and y where the baseline begins.
        gaps: the range of the gaps between digits, for digits of 20 pixels; without it, as the font says or at
            random.
    """
    sheet.strings += 1
    x, y = at
    fixed = gaps is None and not hand.unsteady
    low, high = gaps or gap(rng)
    unit = hand.size / 20
    climb = rng.normal(0, 0.02) * hand.unsteady
    begin, before = x, ""
    for character in text:
        foot = y + (x - begin) * climb + rng.normal(0, 0.04) * hand.size * hand.unsteady
        if fixed:
            _, x = hand.write(sheet, character, (x, foot), rng, sheet.strings, left=False)
            continue
        if before:
            space = rng.uniform(low, high)
            # signs touch digits less often than digits touch each other
            if not (before.isdigit() and character.isdigit()):
                space = max(space, rng.uniform(0, 5))
            x += space * unit
        x, _ = hand.write(sheet, character, (x, foot), rng, sheet.strings)
        before = character
    return x


def write_word(sheet: Sheet, hand: Hand, text: str, at: Point, rng: Rng) -> float:
    """Write letters and signs with the baseline at y. Returns where the next word may begin, less a space."""
    x, y = at
    spread = rng.uniform(0, 0.12) * hand.size if rng.random() < 0.3 else 0.0
    for character in text:
        if hand.letters is None:
            if character not in PEN_LETTERS | PEN_SIGNS:
                continue
            right, _ = hand.write(sheet, character, (x, y), rng, -1)
            x = right + hand.size * rng.uniform(0.03, 0.2)
        else:
            _, x = hand.write(sheet, character, (x, y), rng, -1, left=False)
            x += spread
    return x


def write_line(sheet: Sheet, hand: Hand, at: Point, plain: float, rng: Rng) -> None:
    """Fill a line with strings up to the sheet's right edge. plain: the fraction of lines that are digits only."""
    x, y = at
    mixed = rng.random() >= plain
    gaps = None if not hand.unsteady and rng.random() < 0.7 else gap(rng)
    for _ in range(12):
        if x >= sheet.width:
            return
        way = rng.random()
        if mixed and way < 0.3:
            x = write_word(sheet, hand, word(rng), (x, y), rng)
        elif mixed and way < 0.42:
            x = write_lone(sheet, hand, (x, y), rng)
        elif mixed and way < 0.75:
            x = write_string(sheet, hand, number(rng), (x, y), rng, gaps)
        else:
            room = int(np.clip((sheet.width - x) / (hand.size * 0.7), 1, 12))
            high = min(room, int(rng.integers(1, 10)))
            low = min(2, high) if rng.random() < 0.85 else 1
            x = write_string(sheet, hand, digits(rng, low, high), (x, y), rng, gaps)
            if not mixed and rng.random() < 0.6:
                return
        x += hand.size * (rng.uniform(0.1, 0.5) if mixed and rng.random() < 0.5 else rng.uniform(0.6, 2.5))


def write_lone(sheet: Sheet, hand: Hand, at: Point, rng: Rng) -> float:
    """Write a letter or a sign that stands alone. Returns its right edge."""
    if rng.random() < 0.5:
        letter = LONE[rng.integers(len(LONE))]
        if hand.letters is not None or letter in PEN_LETTERS:
            return hand.write(sheet, letter, at, rng, -1)[0]
    elif rng.random() < 0.6:
        return hand.write(sheet, str(rng.choice(list("+=-/:x()%"))), at, rng, -1)[0]
    glyph = hand.strokes.sign(hand.pen, rng)
    scale = hand.size / glyph.unit * rng.uniform(0.7, 1.1)
    matrix = np.array([[scale, -0.1 * scale], [0, scale]])
    left = float((glyph.outline @ matrix[0]).min())
    return sheet.put(glyph, matrix, (at[0] - left, at[1] - glyph.foot * scale), hand)
