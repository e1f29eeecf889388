"""Tests of benchmarks/numerals*.py: the pictures that measure how numbers are read, and the scoring of answers."""

from pathlib import Path

import numerals
import numerals_blank
import pytest
from numerals_scores import Found, Picture, score

# how many pictures have all sorts of a kind among them
ALL_SORTS = {"tables": 2, "decimals": 4, "sheets": 3, "blank": 8}
KINDS = [kind for kind in [*numerals.STRINGS, *numerals.KINDS] if kind not in numerals.NEED_FONTS]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pictures_of_a_kind_are_the_same_each_time(kind, drawn_digits):
    count = ALL_SORTS.get(kind, 1)
    pictures = list(numerals.made(kind, count, drawn_digits))
    assert pictures == list(numerals.made(kind, count, drawn_digits))
    assert len({picture.sub for picture in pictures}) == count
    assert pictures[:1] == list(numerals.made(kind, 1, drawn_digits))
    shown = [*pictures[0].lines, *(text for text, _ in pictures[0].cells)]
    assert bool(shown) == (kind != "blank")


def test_handwriting_is_in_the_held_out_fonts_of_the_pipeline(drawn_digits, tmp_path, monkeypatch):
    fonts = sorted(Path("/usr/share/fonts").rglob("DejaVu*.ttf"))
    if not fonts:
        pytest.skip("needs a font")
    monkeypatch.setattr(numerals_blank, "FONTS", tmp_path)
    (tmp_path / "caveat.ttf").write_bytes(fonts[0].read_bytes())
    assert numerals.handwriting() == []
    (tmp_path / "kalam.ttf").write_bytes(fonts[0].read_bytes())
    (words,), (names,) = (numerals.made(kind, 1, drawn_digits) for kind in numerals.NEED_FONTS)
    assert not words.lines
    assert names.lines


def perfect(pictures):
    """A reader that knows the pictures."""
    shown = {picture.file: picture for picture in pictures}

    def read(file):
        picture = shown[file]
        lines = [Found(line, True, [(line, (0, 0, 1, 1))]) for line in picture.lines]
        return lines + [Found(text, True, [(text, box)]) for text, box in picture.cells]

    return read


@pytest.mark.parametrize("kind", ["spaced", "decimals", "tables", "blank"])
def test_a_perfect_reader_gets_full_marks_and_a_blind_one_none(kind, drawn_digits, capsys):
    pictures = list(numerals.made(kind, 4, drawn_digits))
    row = numerals.evaluate(perfect(pictures), drawn_digits, 4, [kind], None)[0]
    assert (row["kind"], row["n"], row["wholly right"], row["sure and wrong"]) == (kind, 4, 1, 0)
    blind = numerals.evaluate(lambda file: [], drawn_digits, 4, [kind], None)[0]
    assert blind["wholly right"] == (kind == "blank")
    assert blind["no sure wrong line"] == 1
    assert f"| {kind} | 4 | 100.0% |" in capsys.readouterr().out


def line(text, sure=True, *words):
    """A line that was found."""
    return Found(text, sure, words or [(text, (0, 0, 9, 9))])


@pytest.mark.parametrize(
    ("shown", "found", "whole", "right", "sure_and_wrong"),
    [
        (["125"], [line("125")], True, 1, 0),
        (["125"], [line("12 5")], True, 1, 0),
        (["125"], [line("12"), line("5", sure=False)], False, 0, 1),
        (["12", "34"], [line("34"), line("12")], False, 2, 0),
        (["12", "34"], [line("12"), line("34"), line("1")], False, 2, 1),
        (["14 09"], [line("14 09")], True, 1, 0),
        (["14 09"], [line("14"), line("09")], True, 1, 0),
        (["14 09"], [line("1409")], False, 0, 1),
        (["14 09"], [line("1409", sure=False)], False, 0, 0),
        (["14 09"], [line("14"), line("9", sure=False)], False, 0, 1),
        (["14 09"], [line("14 0 9")], False, 0, 1),
        ([], [], True, 0, 0),
        ([], [line("1", sure=False)], False, 0, 0),
        ([], [line("1")], False, 0, 1),
    ],
)
def test_lines_are_compared_with_what_a_picture_shows(shown, found, whole, right, sure_and_wrong):
    result = score(Picture(b"", shown), found)
    assert (result.whole, result.right, result.sure_and_wrong) == (whole, right, sure_and_wrong)


LEFT, RIGHT = (0, 0, 50, 40), (50, 0, 50, 40)


@pytest.mark.parametrize(
    ("found", "whole", "right", "sure_and_wrong"),
    [
        ([line("12 3", True, ("12", (10, 10, 30, 20)), ("3", (60, 10, 10, 20)))], True, 2, 0),
        ([line("12", True, ("12", (10, 10, 30, 20))), line("3", True, ("3", (60, 10, 10, 20)))], True, 2, 0),
        ([line("123", True, ("123", (10, 10, 60, 20)))], False, 0, 1),
        ([line("3 12", True, ("3", (10, 10, 30, 20)), ("12", (60, 10, 10, 20)))], False, 0, 1),
        ([line("12", True, ("12", (10, 10, 30, 20)))], False, 1, 0),
        ([line("1 2", False, ("1", (5, 10, 9, 20)), ("2", (25, 10, 9, 20)))], False, 0, 0),
    ],
)
def test_cells_are_compared_by_their_places(found, whole, right, sure_and_wrong):
    result = score(Picture(b"", cells=[("12", LEFT), ("3", RIGHT)]), found)
    assert (result.whole, result.right, result.sure_and_wrong) == (whole, right, sure_and_wrong)
