"""The kinds of pages: each function fills a sheet. `KINDS` names them, and params.yaml gives their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from digits.training.detector import clutter
from digits.training.detector.glyphs import Rng, Stock
from digits.training.detector.sheet import SCALE, Hand, Sheet, hand
from digits.training.detector.writing import (
    digits,
    number,
    word,
    write_line,
    write_lone,
    write_string,
    write_word,
)


@dataclass(frozen=True)
class Desk:
    """What a kind of page works with: the stock, random numbers and params.yaml's `detector.pages`."""

    stock: Stock
    rng: Rng
    params: dict[str, Any]

    def size(self) -> float:
        """The height of digits in the sheet's pixels."""
        way, rng = self.rng.random(), self.rng
        if way < 0.4:
            size = np.exp(rng.uniform(np.log(13), np.log(38)))
        elif way < 0.91:
            size = np.clip(rng.normal(22, 3.5), 13, 38)
        else:
            size = rng.uniform(6, 11) if way < 0.96 else np.exp(rng.uniform(np.log(43), np.log(120)))
        return float(size * SCALE)

    def hand(self, size: float, weights: dict[str, float] | None = None) -> Hand:
        """A hand at random. weights: of the sources of its digits, by default those in the params."""
        return hand(self.stock, self.rng, size, weights or self.params["digits"])

    def printer(self, size: float) -> Hand:
        """A printed font."""
        return self.hand(size, {"printed": 1.0})

    def tone(self) -> int:
        """How dark printed lines are, 30 to 255."""
        return int(self.rng.integers(30, 256))


def strings(sheet: Sheet, desk: Desk) -> None:
    """Lines of strings, on plain, ruled or squared paper."""
    rng, size = desk.rng, desk.size()
    pitch = size * (rng.uniform(1.25, 2.2) if rng.random() < 0.7 else rng.uniform(2.2, 4))
    way = rng.random()
    first = rng.uniform(0.6, 1.6) * size
    if way < desk.params["ruled"]:
        every = pitch if rng.random() < 0.7 else pitch * rng.uniform(0.45, 1.5)
        foot = first + size * (rng.uniform(-0.1, 0.3) if rng.random() < 0.7 else rng.uniform(-1, 0))
        clutter.ruled(sheet, rng, every, foot, desk.tone())
    elif way < desk.params["ruled"] + desk.params["squared"]:
        clutter.squared(sheet, rng, size * rng.uniform(0.4, 1.6), desk.tone())
    writer = desk.hand(size)
    lines = np.arange(first, sheet.height + 0.5 * size, pitch)
    if rng.random() < 0.35:
        begin = int(rng.integers(0, max(1, len(lines) - 1)))
        lines = lines[begin : begin + int(rng.integers(1, 3))]
    left = rng.uniform(-0.1, 0.4) * sheet.width
    for y in lines:
        if rng.random() < 0.15:
            writer = desk.hand(size * rng.uniform(0.85, 1.15))
        x = left + rng.normal(0, 0.3) * size if rng.random() < 0.7 else rng.uniform(-0.1, 0.6) * sheet.width
        write_line(sheet, writer, (x, y), desk.params["plain"], rng)


def dense(sheet: Sheet, desk: Desk) -> None:
    """Many digits: rows close to each other, filled from edge to edge, or a grid of single digits."""
    rng = desk.rng
    size = SCALE * rng.uniform(12, 26)
    writer = desk.hand(size)
    grid = rng.random() < 0.5
    step, pitch = size * rng.uniform(1.05, 2), size * rng.uniform(1.1, 1.8)
    for y in np.arange(rng.uniform(0.5, 1.2) * size, sheet.height + size, pitch):
        x = rng.uniform(-0.5, 0.5) * size
        if grid:
            for at in np.arange(x, sheet.width, step):
                if rng.random() < 0.95:
                    write_string(sheet, writer, digits(rng, 1, 1), (at + rng.normal(0, 0.05) * size, y), rng)
        else:
            while x < sheet.width:
                x = write_string(sheet, writer, digits(rng, 2, 12), (x, y), rng) + size * rng.uniform(0.6, 2)


def boxes(sheet: Sheet, desk: Desk) -> None:
    """Rows of boxes or combs, one character in each, some or all of them empty, with printed labels."""
    rng, size = desk.rng, desk.size()
    y = rng.uniform(-0.3, 0.8) * size
    writer = desk.hand(size)
    empty = desk.params["empty"]
    while y < sheet.height:
        side, wide = size * rng.uniform(1.1, 1.9), size * rng.uniform(0.95, 1.7)
        space = size * rng.uniform(0.05, 0.5) if rng.random() < 0.5 else 0.0
        tone, line = desk.tone(), SCALE * rng.uniform(0.4, 2.2)
        style = rng.random()
        x = rng.uniform(-0.1, 0.5) * sheet.width
        if rng.random() < 0.4:
            printer = desk.printer(size * rng.uniform(0.5, 0.9))
            end = write_word(sheet, printer, word(rng), (x, y + side * 0.6), rng)
            if rng.random() < 0.5:
                end = write_word(sheet, printer, word(rng) + ":", (end + 0.3 * size, y + side * 0.6), rng)
            x = end + 0.5 * size
        count, comb = int(rng.integers(1, 13)), side * rng.uniform(0.2, 0.5)
        blank = rng.random()
        fill = 0.0 if blank < empty else rng.uniform(0.2, 0.8) if blank < empty + 0.2 else 1.0
        sheet.strings += 1
        string = sheet.strings
        for i in range(count):
            left = x + i * (wide + space)
            if left > sheet.width:
                break
            if style < 0.7:
                sheet.lines([np.array([[left, y], [left + wide, y], [left + wide, y + side], [left, y + side]])],
                            tone, line, True)  # fmt: skip
            else:
                ends = [[[left, y + side - comb], [left, y + side]], [[left, y + side], [left + wide, y + side]],
                        [[left + wide, y + side - comb], [left + wide, y + side]]]  # fmt: skip
                sheet.lines([np.array(end, float) for end in ends[: 3 if style < 0.9 else 2]], tone, line)
            if rng.random() >= fill:
                continue
            at = (left + wide * rng.uniform(0.02, 0.45), y + side * 0.5 + size * (0.5 + rng.normal(0, 0.12)))
            pick = rng.random()
            if pick < 0.9:
                writer.write(sheet, digits(rng, 1, 1), at, rng, string)
            elif pick < 0.95:
                write_lone(sheet, writer, at, rng)
            else:
                tick = writer.strokes.tick(writer.pen, rng)
                scale = writer.size / tick.unit * rng.uniform(0.6, 1.3)
                sheet.put(tick, np.eye(2) * scale, (at[0], at[1] - tick.foot * scale), writer)
        y += side + (size * rng.uniform(0.2, 2) if rng.random() < 0.75 else space)


def tables(sheet: Sheet, desk: Desk) -> None:
    """Cells with numbers, words or nothing, with all, some or no lines between them."""
    rng = desk.rng
    size = min(desk.size(), SCALE * 40)
    columns = [size * rng.uniform(1.5, 6) for _ in range(30)]
    rows = size * rng.uniform(1.3, 2.6)
    x0, y0 = rng.uniform(-0.2, 0.25) * sheet.width, rng.uniform(-0.2, 0.3) * sheet.height
    xs = x0 + np.cumsum([0, *columns])
    xs = xs[xs < sheet.width * rng.uniform(0.8, 1.3)]
    ys = np.arange(y0, sheet.height * rng.uniform(0.7, 1.2), rows)
    tone, line, way = desk.tone(), SCALE * rng.uniform(0.4, 2.2), rng.random()
    if len(xs) < 2 or len(ys) < 2:
        return
    across = [np.array([[xs[0], y], [xs[-1], y]]) for y in ys]
    down = [np.array([[x, ys[0]], [x, ys[-1]]]) for x in xs]
    if way < 0.75:
        sheet.lines(across + down if way < 0.5 else across if way < 0.65 else down, tone, line)
    same = desk.hand(size)
    heads = desk.printer(size * rng.uniform(0.6, 1)) if rng.random() < 0.5 else same
    contents = rng.choice(["digits", "number", "word", "digit"], len(xs), p=[0.5, 0.15, 0.15, 0.2])
    fill = 0.0 if rng.random() < desk.params["empty"] else rng.uniform(0.5, 1)
    for row, y in enumerate(ys[:-1]):
        for left, right, content in zip(xs[:-1], xs[1:], contents, strict=False):
            writer = heads if row == 0 or (left == xs[0] and heads is not same) else same
            if rng.random() >= (fill if writer is same else 0.9):
                continue
            at = (left + size * rng.uniform(0.1, 0.5), y + rows * 0.5 + size * (0.5 + rng.normal(0, 0.1)))
            room = int(max(1, (right - left) / size / 0.8))
            if content == "word" or writer is not same:
                write_word(sheet, writer, word(rng)[: room + 1], at, rng)
            elif content == "number" and room > 3:
                write_string(sheet, writer, number(rng), at, rng)
            else:
                write_string(sheet, writer, digits(rng, 1, 1 if content == "digit" else room), at, rng)


def text(sheet: Sheet, desk: Desk) -> None:
    """Lines of words, printed or written by hand, with a number here and there."""
    rng = desk.rng
    size = min(desk.size(), SCALE * 60)
    pitch = size * rng.uniform(1.3, 2.4)
    if rng.random() < 0.3:
        clutter.ruled(sheet, rng, pitch, size, desk.tone())
    by_hand = rng.random() >= 0.45
    writer = desk.hand(size, {"font": 0.7, "mnist": 0.3}) if by_hand else desk.printer(size)
    numbers = rng.uniform(0, 0.25) if rng.random() < 0.7 else 0.0
    for y in np.arange(size * rng.uniform(0.5, 1.5), sheet.height + size, pitch):
        x = rng.uniform(-0.1, 0.15) * sheet.width
        if rng.random() < 0.1:
            writer = desk.printer(size) if rng.random() < 0.5 else desk.hand(size)
        while x < sheet.width * rng.uniform(0.5, 1.1):
            if rng.random() < numbers:
                new = number(rng) if rng.random() < 0.5 else digits(rng, 1, 5)
                x = write_string(sheet, writer, new, (x, y), rng)
            else:
                end = str(rng.choice(["", "", "", ",", ".", ":", "-"]))
                x = write_word(sheet, writer, word(rng) + end, (x, y), rng)
            x += size * rng.uniform(0.35, 0.9)


def scattered(sheet: Sheet, desk: Desk) -> None:
    """Strings, single digits, words and drawings anywhere, in several sizes."""
    rng = desk.rng
    taken: list[tuple[float, float, float, float]] = []
    if rng.random() < 0.15:
        clutter.squared(sheet, rng, SCALE * rng.uniform(8, 30), desk.tone())
    for _ in range(int(rng.integers(3, 26))):
        size = desk.size()
        x, y = rng.uniform(-0.05, 0.95) * sheet.width, rng.uniform(0.05, 1) * sheet.height
        way = rng.random()
        if way < 0.6:
            text = digits(rng, 1, 7 if rng.random() < 0.7 else 1)
        else:
            text = number(rng) if way < 0.7 else word(rng)
        # written apart from all else
        box = (x - 0.3 * size, y - 1.2 * size, x + (len(text) + 0.5) * 0.95 * size, y + 0.4 * size)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        if way < 0.7:
            write_string(sheet, desk.hand(size), text, (x, y), rng)
        elif way < 0.82:
            write_word(sheet, desk.hand(size), text, (x, y), rng)
        else:
            size, y = size * rng.uniform(0.5, 2), y - size
            clutter.drawing(sheet, desk.stock.strokes, rng, size, (x, y), desk.params["drawings"])


def drawn(sheet: Sheet, desk: Desk) -> None:
    """Drawings, hatching and lines without any digit."""
    rng = desk.rng
    way = rng.random()
    if way < 0.4:
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.uniform(-0.2, 0.7, 2) * (sheet.width, sheet.height)
            wide, high = rng.uniform(0.2, 1.2, 2) * (sheet.width, sheet.height)
            clutter.hatching(sheet, rng, (x, y, x + wide, y + high), int(rng.integers(80, 256)))
    elif way < 0.55:
        clutter.squared(sheet, rng, SCALE * rng.uniform(4, 40), desk.tone())
    if way > 0.3:
        for _ in range(int(rng.integers(1, 30))):
            x, y = rng.uniform(-0.1, 1, 2) * (sheet.width, sheet.height)
            size = SCALE * float(np.exp(rng.uniform(np.log(8), np.log(150))))
            clutter.drawing(sheet, desk.stock.strokes, rng, size, (x, y), desk.params["drawings"])


def blank(sheet: Sheet, desk: Desk) -> None:
    """Forms, tables and paper with nothing written in them."""
    empty = replace(desk, params=desk.params | {"empty": 1.0})
    way = desk.rng.random()
    if way < 0.45:
        boxes(sheet, empty)
    elif way < 0.75:
        tables(sheet, empty)
    elif way < 0.9:
        clutter.ruled(sheet, desk.rng, SCALE * desk.rng.uniform(6, 60), 0, desk.tone())
        if desk.rng.random() < 0.5:
            clutter.squared(sheet, desk.rng, SCALE * desk.rng.uniform(10, 60), desk.tone())


KINDS: dict[str, Callable[[Sheet, Desk], None]] = {
    kind.__name__: kind for kind in (strings, dense, boxes, tables, text, scattered, drawn, blank)
}
