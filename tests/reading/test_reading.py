"""Reading numbers in pictures with the shipped detector. Most pictures are made of the web page's samples."""

from collections.abc import Callable
from io import BytesIO
from itertools import product
from time import process_time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageOps

from digits.detector import CLASS, MARK, Detector
from digits.imaging import PictureError
from digits.model import load
from digits.reading import Reading, read
from digits.reading.choose import Calibration, best_choices
from digits.reading.columns import columns_of
from digits.reading.layout import find_lines, words_of
from project import ROOT

DETECTOR = ROOT / "models" / "detector.h5"
SIDE = 56

Reader = Callable[..., Reading]


@pytest.fixture(scope="module")
def detector() -> Detector:
    if not DETECTOR.exists():
        pytest.skip("needs models/detector.h5: run `dvc repro`")
    return Detector(load(DETECTOR))


@pytest.fixture
def read_picture(detector: Detector) -> Reader:
    def read_it(picture: Image.Image | bytes, **options: object) -> Reading:
        data = picture if isinstance(picture, bytes) else png(picture)
        return read(data, "image", detector, **options)  # type: ignore[arg-type]

    return read_it


def png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def sample(digit: str, side: int = SIDE) -> Image.Image:
    """A sample digit of the web page, dark on light."""
    with Image.open(ROOT / f"digits/web/static/samples/{digit}.png") as ink:
        return ink.convert("L").resize((side, side), Image.Resampling.BICUBIC)


def written(lines: list[str], side: int = SIDE, step: float = 0.9, pitch: float = 1.8) -> Image.Image:
    """Lines of sample digits, dark on light; a space leaves a gap. step, pitch: the distance of digits and lines,
    in sides."""
    width = int(max(map(len, lines)) * step * side) + 2 * side
    picture = Image.new("L", (width, int(len(lines) * pitch * side) + side), 255)
    for row, line in enumerate(lines):
        for column, digit in enumerate(line):
            if digit != " ":
                at = int(side / 2 + column * step * side), int((0.5 + row * pitch) * side)
                picture.paste(sample(digit, side), at)
    return picture


def texts(reading: Reading) -> list[str]:
    return [line.text for line in reading.lines]


# lines and words by geometry


def peaks(*places: tuple[float, float], height: float = 20, kind: int = 1) -> np.ndarray:
    """What a detector would find at these centres."""
    out = np.zeros((len(places), CLASS + MARK + 1), np.float32)
    for row, (x, y) in zip(out, places, strict=True):
        row[:CLASS] = 0.99, x, y, 0.6 * height, height
        row[CLASS + kind] = 1
    return out


@pytest.mark.parametrize("degrees", [-14, -5, 0, 7, 14])
def test_slanting_lines_are_found_from_top_to_bottom(degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = [(100 + 18 * i, 100 + 34 * row) for row in range(3) for i in range(6)]
    mixed = np.random.default_rng(1).permutation(18)
    found = find_lines(peaks(*(turn @ places[i] for i in mixed)))
    assert [sorted(mixed[line]) for line in found] == [list(range(6 * row, 6 * row + 6)) for row in range(3)]
    assert all(list(mixed[line]) == sorted(mixed[line]) for line in found)


def test_a_lone_digit_is_a_line_and_digits_of_other_sizes_are_in_other_lines() -> None:
    found = find_lines(np.concatenate([peaks((10, 20)), peaks((90, 20), height=60), peaks((30, 90))]))
    assert sorted(map(len, found)) == [1, 1, 1]


def test_words_are_parted_where_digits_are_clearly_apart() -> None:
    digits = peaks(*((x, 0) for x in (0, 0.8, 1.6, 4, 4.8)), height=1)
    assert [word.tolist() for word in words_of(digits, np.array([]))] == [[0, 1, 2], [3, 4]]
    # the boxes of a form are all as far apart
    digits = peaks(*((1.7 * i, 0) for i in range(6)), height=1)
    assert [word.tolist() for word in words_of(digits, np.array([]))] == [[0, 1, 2, 3, 4, 5]]


def test_a_mark_between_digits_parts_them() -> None:
    digits = peaks((0, 0), (1.6, 0), (2.4, 0), height=1)
    assert [word.tolist() for word in words_of(digits, np.array([-0.8, 0.8]))] == [[0], [1, 2]]


def test_words_below_each_other_are_in_one_column() -> None:
    def box(x: int, width: int) -> tuple[int, int, int, int]:
        return x, 0, width, 20

    table = [[box(0, 30), box(100, 40), box(200, 20)], [box(105, 20)], [box(5, 60), box(190, 60)]]
    assert columns_of(table) == [[0, 1, 2], [1], [0, 2]]
    assert columns_of([]) == []
    assert columns_of([[], [box(0, 30)]]) == [[], [0]]


def test_columns_are_found_on_a_page_that_is_turned() -> None:
    # 20 rows of three columns, turned by 3 degrees, so that columns drift by more than the gaps between them
    boxes, expected = [], []
    for i in range(20):
        # in one row, a number that was read in two parts, and in one, a number that reaches below the next column
        widths = [[20, 14] if i == 13 else [36], [80 if i == 7 else 36] * (i % 3 > 0), [36]]
        line, columns, y = [], [], 60 + 50 * i
        for column, parts in enumerate(widths):
            x = 60 + 90 * column + i * 7 % 30
            for width in parts:
                line.append((round(x - 0.052 * y), round(y + 0.052 * x), width, 30))
                columns.append(column)
                x += width + 8
        boxes.append(line)
        expected.append(columns)
    assert columns_of(boxes) == expected


@given(
    st.lists(
        st.lists(st.tuples(*[st.integers(0, 200)] * 2, *[st.integers(1, 90)] * 2), max_size=6), max_size=12
    )
)
def test_columns_are_numbered_from_left_to_right(boxes: list[list[tuple[int, int, int, int]]]) -> None:
    columns = columns_of(boxes)
    assert [len(line) for line in columns] == [len(line) for line in boxes]
    found = {column for line in columns for column in line}
    assert found == set(range(len(found)))


# the best text


def luhn(text: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    values = [int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(text))]
    return sum(values) % 10 == 0


def uncertain(number: int, seed: int = 2) -> np.ndarray:
    """What may be digits, each of several classes."""
    rng = np.random.default_rng(seed)
    out = peaks(*((20 * i, 0) for i in range(number)))
    out[:, 0] = rng.uniform(0.2, 0.95, number)
    out[:, CLASS:] = 0
    for row in out:
        row[CLASS + rng.permutation(10)[:3]] = rng.dirichlet((1, 1, 1))
    return out


@pytest.mark.parametrize(
    ("length", "check"), [(None, None), (3, None), (4, None), (None, "luhn"), (3, "luhn")]
)
def test_the_best_choices_are_those_that_trying_all_would_give(length: int | None, check: str | None) -> None:
    candidates = uncertain(4)
    found = best_choices(candidates, 3, length, check)
    every: dict[str, float] = {}
    there = candidates[:, 0]
    for choice in product(range(MARK + 1), repeat=len(candidates)):
        # the last choice is to leave out the digit
        text = "".join(str(kind) for kind in choice if kind < MARK)
        parts = [
            there[i] * candidates[i, CLASS + kind] / candidates[i, CLASS:].max()
            if kind < MARK
            else 1 - there[i]
            for i, kind in enumerate(choice)
        ]
        if text and length in (None, len(text)) and (check is None or (luhn(text) and len(text) > 1)):
            every[text] = max(every.get(text, 0), float(np.prod(parts)))
    best = sorted(every, key=lambda text: -every[text])[:3]
    assert ["".join(str(kind) for _, kind in each.choice) for each in found] == best
    nothing = float(np.log(1 - there).sum())
    scores = [each.score + nothing for each in found]
    assert np.exp(scores) == pytest.approx([every[text] for text in best], rel=1e-4)


def test_no_text_has_more_digits_than_there_are() -> None:
    assert best_choices(uncertain(4), 5, 5) == []


def test_conditions_on_long_words_take_bounded_time() -> None:
    begun = process_time()
    (best, *_) = best_choices(uncertain(200), 11, 50, "luhn")
    assert len(best.choice) == 50
    assert luhn("".join(str(kind) for _, kind in best.choice))
    few = process_time() - begun
    begun = process_time()
    best_choices(uncertain(800), 11, 50, "luhn")
    # four times as many digits take about four times as long, and not sixteen
    assert process_time() - begun < 10 * max(few, 0.2)


def test_a_calibration_gives_probabilities_by_its_weights() -> None:
    given = {"presence": [[1.0], 0.0], "line": [[1.0, -2.0], 0.5], "sure": 0.97, "sure_digit": 0.8}
    calibration = Calibration({"calibration": given})
    half, high, low = calibration.line(np.array([[1.5, 1.0], [9.0, 0.0], [0.0, 9.0]])).tolist()
    assert half == 0.5
    assert high > 0.99 > low
    assert (calibration.sure, calibration.sure_digit) == (0.97, 0.8)
    assert Calibration({"calibration": given}, sure=0.5).sure == 0.5
    # nothing is sure by a card without a calibration
    assert Calibration({}).sure > 1


def test_a_detector_finds_the_same_in_tiles_as_at_once(detector: Detector) -> None:
    page = np.asarray(written(["40725", "31698"] * 5, 28))
    tall = np.concatenate([page] * 2)

    def found(grey: np.ndarray) -> np.ndarray:
        peaks, spent = detector.detect(grey)
        assert spent >= grey.size
        return peaks[peaks[:, 0] > 0.5]

    assert abs(len(found(tall)) - 2 * len(found(page))) <= 0.05 * len(found(tall))


# whole pictures


def test_lines_are_read_from_top_to_bottom(read_picture: Reader) -> None:
    reading = read_picture(written(["2023", "857"]))
    assert reading.text == "2023\n857"
    assert texts(reading) == ["2023", "857"]


def test_boxes_are_where_the_digits_are(read_picture: Reader) -> None:
    picture = written(["25"], 60)
    (line,) = read_picture(picture).lines
    dark = np.asarray(picture) < 128
    for digit in line.digits:
        x, y, width, height = digit.box
        inside = dark[y : y + height, x : x + width]
        assert inside.any()
        assert 35 < height < 60
    assert sum(
        dark[d.box[1] : d.box[1] + d.box[3], d.box[0] : d.box[0] + d.box[2]].sum() for d in line.digits
    ) > (0.9 * dark.sum())


@pytest.mark.parametrize("size", [(300, 200), (1, 1), (1, 200), (6000, 24), (24, 6000), (1200, 6)])
def test_an_empty_picture_of_any_shape_has_no_lines(read_picture: Reader, size: tuple[int, int]) -> None:
    reading = read_picture(Image.new("L", size, 255))
    assert reading.text == ""
    assert reading.lines == reading.marks == []


def test_bright_ink_on_a_dark_background_is_read(read_picture: Reader) -> None:
    assert read_picture(ImageOps.invert(written(["2023", "857"]))).text == "2023\n857"


def test_a_shadow_is_not_taken_for_ink(read_picture: Reader) -> None:
    grey = np.asarray(written(["2023", "857"])).astype(float)
    # a gradient over the whole width, and a hard edge on the right
    grey *= np.linspace(0.5, 1, grey.shape[1])[None]
    grey[:, int(0.6 * grey.shape[1]) :] *= 0.55
    assert read_picture(Image.fromarray(grey.astype(np.uint8))).text == "2023\n857"


def test_ruled_lines_through_digits_are_not_read_as_digits(read_picture: Reader) -> None:
    picture = written(["2523"])
    draw = ImageDraw.Draw(picture)
    for y in (8, 66, 124):
        draw.line((0, y, picture.width, y + 3), 90, 2)
    assert read_picture(picture).text == "2523"


def boxed(text: str, gap: int = 0, tone: int = 40, width: int = 3) -> Image.Image:
    """Sample digits in the boxes of a form, which are `gap` pixels apart; a space leaves a box empty."""
    picture = Image.new("L", (40 + (66 + gap) * len(text), 130), 245)
    draw = ImageDraw.Draw(picture)
    for i, digit in enumerate(text):
        left = 20 + i * (66 + gap)
        if digit != " ":
            picture.paste(sample(digit, 50), (left + 8, 40))
        draw.rectangle((left, 25, left + 66, 105), outline=tone, width=width)
    return picture


@pytest.mark.parametrize(("gap", "tone", "width"), [(0, 40, 3), (14, 40, 3), (14, 200, 1), (0, 220, 3)])
def test_boxes_are_not_read_as_digits(read_picture: Reader, gap: int, tone: int, width: int) -> None:
    assert texts(read_picture(boxed("250836", gap, tone, width))) == ["250836"]


def test_nothing_is_sure_in_empty_boxes(read_picture: Reader) -> None:
    assert all(line.unsure for line in read_picture(boxed("      ", 10)).lines)


def test_the_words_of_a_line_are_parted_and_joined_by_spaces(read_picture: Reader) -> None:
    reading = read_picture(written(["20   31", "85   72"]))
    assert reading.text == "20 31\n85 72"
    (first, second) = reading.lines[0].words
    assert (first.text, second.text) == ("20", "31")
    assert [digit.digit for digit in first.digits] == [2, 0]
    assert first.box[0] + first.box[2] < second.box[0]
    assert columns_of([[word.box for word in line.words] for line in reading.lines]) == [[0, 1], [0, 1]]
    assert reading.lines[0].digits == [*first.digits, *second.digits]


@pytest.mark.parametrize("side", [14, 28, 150, 400])
def test_digits_of_any_size_are_read(read_picture: Reader, side: int) -> None:
    assert read_picture(written(["2023"], side)).text == "2023"


def test_small_digits_on_a_large_page_are_read(read_picture: Reader) -> None:
    page = Image.new("L", (2400, 3200), 255)
    page.paste(written(["85725", "20316"], 40), (300, 2500))
    assert read_picture(page).text == "85725\n20316"


@pytest.mark.parametrize("degrees", [-12, 7])
def test_slanting_lines_are_read_separately(read_picture: Reader, degrees: float) -> None:
    picture = written(["20232", "85725"]).rotate(
        degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=255
    )
    assert read_picture(picture).text == "20232\n85725"


def test_the_exif_orientation_is_applied_to_the_picture_and_its_boxes(read_picture: Reader) -> None:
    picture = written(["2023"])
    upright = read_picture(picture)
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(file, "JPEG", quality=95, exif=exif)
    rotated = read_picture(file.getvalue())
    assert rotated.text == upright.text == "2023"
    for one, other in zip(rotated.lines[0].digits, upright.lines[0].digits, strict=True):
        assert np.abs(np.subtract(one.box, other.box)).max() <= 3


def test_boxes_are_in_pixels_of_the_picture_whatever_its_size(read_picture: Reader) -> None:
    small = written(["203"], 60)
    large = small.resize((small.width * 9, small.height * 9))
    file = BytesIO()
    large.save(file, "JPEG")
    for one, other in zip(read_picture(file.getvalue()).lines, read_picture(small).lines, strict=True):
        assert one.text == other.text
        for in_large, in_small in zip(one.digits, other.digits, strict=True):
            assert np.abs(np.array(in_large.box) / 9 - in_small.box).max() < 6


def test_length_sets_the_number_of_digits_of_each_word(read_picture: Reader) -> None:
    picture = written(["2023"])
    assert read_picture(picture, length=4).text == "2023"
    (line,) = read_picture(picture, length=3).lines
    assert len(line.text) == len(line.digits) == 3
    assert line.unsure
    (line,) = read_picture(picture, length=40).lines
    assert line.text == "2023"
    assert line.unsure


def test_a_number_in_groups_has_the_length_and_the_check_digit_of_the_whole(read_picture: Reader) -> None:
    # 20238 has no correct check digit, 20238 57200 as a whole has
    assert luhn("2023857200")
    (line,) = read_picture(written(["20238   57200"]), length=10, check="luhn").lines
    assert line.text == "20238 57200"
    assert [word.text for word in line.words] == ["20238", "57200"]
    (line,) = read_picture(written(["20238   57200"]), length=5).lines
    assert line.text == "20238 57200"
    (line,) = read_picture(written(["20238   57200"]), length=9).lines
    assert len(line.digits) == 9


@pytest.mark.parametrize("digit", ["5", "20"])
def test_a_number_with_a_minus_before_it_is_not_sure(read_picture: Reader, digit: str) -> None:
    picture = written([f" {digit}"])
    ImageDraw.Draw(picture).line((36, 58, 66, 58), 0, 5)
    (line,) = read_picture(picture, sure=0.0).lines
    assert line.text == digit
    assert line.unsure


@pytest.mark.parametrize("text", ["59", "2023", "85725"])
def test_check_returns_a_number_with_a_correct_check_digit(read_picture: Reader, text: str) -> None:
    (line,) = read_picture(written([text]), check="luhn").lines
    assert luhn(line.text)
    assert len(line.text) > 1
    assert (line.text == text) == luhn(text)


def test_alternatives_are_other_texts_sorted_by_probability(read_picture: Reader) -> None:
    (line,) = read_picture(written(["2023"]), alternatives=3).lines
    others = [text for text, _ in line.alternatives]
    probabilities = [probability for _, probability in line.alternatives]
    assert len(others) == len({*others, line.text}) - 1 == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 <= probability <= line.probability <= 1 for probability in probabilities)
    assert read_picture(written(["2023"])).lines[0].alternatives == []


def test_sure_sets_the_probability_below_which_lines_are_unsure(read_picture: Reader) -> None:
    picture = written(["2023"])
    assert not read_picture(picture, sure=0.0).lines[0].unsure
    assert read_picture(picture, sure=1.0).lines[0].unsure


def test_more_than_five_thousand_digits_are_refused(read_picture: Reader) -> None:
    page = Image.new("L", (2700, 2700), 255)
    digit = sample("3", 36)
    for y in range(20, 2670, 36):
        for x in range(20, 2670, 36):
            page.paste(digit, (x, y))
    with pytest.raises(PictureError, match="5,000 digits") as refusal:
        read_picture(page)
    assert refusal.value.kind == "large"


def patterns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:700, :700]
    return {
        "noise": rng.integers(0, 256, (700, 700)),
        "hatching": 255 * ((x + y) % 9 > 2),
        "lines": 255 * (y % 3 > 0),
        "board": 255 * (((x // 20) + (y // 20)) % 2),
    }


@pytest.mark.parametrize("name", patterns())
def test_patterns_are_not_sure_numbers_and_take_bounded_time(read_picture: Reader, name: str) -> None:
    pattern = patterns()[name].astype(np.uint8)
    begun = process_time()
    read_picture(written(["2023"]))
    usual = process_time() - begun
    begun = process_time()
    reading = read_picture(Image.fromarray(np.tile(pattern, (3, 3))), length=9, check="luhn", alternatives=10)
    assert process_time() - begun < 100 * usual
    assert all(line.unsure for line in reading.lines)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 60), st.integers(1, 60))),
    times=st.integers(1, 4),
    length=st.none() | st.integers(1, 9),
    check=st.sampled_from([None, "luhn"]),
)
def test_the_reading_of_any_picture_is_consistent(
    read_picture: Reader, pixels: np.ndarray, times: int, length: int | None, check: str | None
) -> None:
    picture = Image.fromarray(np.kron(pixels, np.ones((times, times), np.uint8)))
    reading = read_picture(picture, length=length, check=check, alternatives=2)
    assert reading.text == "\n".join(line.text for line in reading.lines)
    for line in reading.lines:
        assert line.text == " ".join(word.text for word in line.words)
        assert all(word.text == "".join(str(digit.digit) for digit in word.digits) for word in line.words)
        assert 0 <= line.probability <= 1
    boxes = [digit.box for line in reading.lines for digit in line.digits] + reading.marks
    for x, y, width, height in boxes + [word.box for line in reading.lines for word in line.words]:
        assert 0 <= x < x + width <= picture.width
        assert 0 <= y < y + height <= picture.height
