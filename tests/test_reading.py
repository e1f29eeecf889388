"""Reading numbers in pictures with the shipped network. The tests draw most pictures from a font's digits."""

from io import BytesIO
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFont, ImageOps

from digits.imaging import HugePictures, PictureError
from digits.model import Classifier, load
from digits.reading import Reading, read
from digits.reading.path import Edge, Graph, best_readings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(load(ROOT / "models" / "mnist.h5"))


def png(picture: Image.Image, **options) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def printed(lines: list[str], size: int = 48, spread: float = 0.3) -> Image.Image:
    """Lines of printed digits, dark on light."""
    font = ImageFont.load_default(size)
    width = int(max(map(len, lines)) * size * (0.6 + spread)) + 2 * size
    picture = Image.new("L", (width, int(len(lines) * 1.8 * size) + size), 245)
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        for column, digit in enumerate(line):
            draw.text((size + column * size * (0.6 + spread), (0.5 + row * 1.8) * size), digit, 20, font)
    return picture


def boxed(text: str, gap: int = 0, tone: int = 40, width: int = 3) -> Image.Image:
    """Printed digits in the boxes of a form, which are `gap` pixels apart."""
    picture = Image.new("L", (520, 130), 245)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(52)
    for i, digit in enumerate(text):
        left = 20 + i * (66 + gap)
        draw.rectangle((left, 25, left + 66, 105), outline=tone, width=width)
        draw.text((left + 18, 34), digit, 20, font)
    return picture


@pytest.fixture
def read_picture(classifier):
    def read_it(picture: Image.Image | bytes, **options) -> Reading:
        data = picture if isinstance(picture, bytes) else png(picture)
        return read(data, "image", classifier.probabilities, classifier.sure_threshold, **options)

    return read_it


def test_lines_are_read_from_top_to_bottom(read_picture):
    reading = read_picture(printed(["2023", "857"]))
    assert reading.text == "2023\n857"
    assert [line.text for line in reading.lines] == ["2023", "857"]


def test_boxes_are_where_the_digits_are(read_picture):
    picture = printed(["25"], 60)
    (line,) = read_picture(picture).lines
    dark = np.asarray(picture) < 128
    for digit in line.digits:
        x, y, width, height = digit.box
        assert dark[y : y + height, x : x + width].any()
        assert 30 < height < 60
    assert sum(
        dark[d.box[1] : d.box[1] + d.box[3], d.box[0] : d.box[0] + d.box[2]].sum() for d in line.digits
    ) > (0.9 * dark.sum())


def test_an_empty_picture_has_no_lines(read_picture):
    reading = read_picture(Image.new("L", (300, 200), 255))
    assert reading.text == ""
    assert reading.lines == reading.marks == []


def test_bright_ink_on_a_dark_background_is_read(read_picture):
    assert read_picture(ImageOps.invert(printed(["2023", "857"]))).text == "2023\n857"


def test_a_shadow_is_not_taken_for_ink(read_picture):
    grey = np.asarray(printed(["2023", "857"])).astype(float)
    # a gradient over the whole width, and a hard edge on the right
    grey *= np.linspace(0.5, 1, grey.shape[1])[None]
    grey[:, int(0.6 * grey.shape[1]) :] *= 0.55
    assert read_picture(Image.fromarray(grey.astype(np.uint8))).text == "2023\n857"


def test_ruled_lines_through_digits_are_not_read_as_digits(read_picture):
    picture = printed(["2523"])
    draw = ImageDraw.Draw(picture)
    for y in (8, 56, 104):
        draw.line((0, y, picture.width, y + 3), 90, 2)
    assert read_picture(picture).text == "2523"


@pytest.mark.parametrize("gap", [0, 14])
def test_boxes_are_not_read_as_digits(read_picture, gap):
    assert read_picture(boxed("250836", gap)).text == "250836"


@pytest.mark.parametrize(("gap", "tone", "width"), [(14, 196, 1), (14, 204, 1), (0, 220, 3)])
def test_faint_boxes_are_not_read_as_digits(read_picture, gap, tone, width):
    picture = boxed("250836", gap, tone, width)
    noise = np.random.default_rng(0).normal(0, 6, (130, 520))
    noisy = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    assert read_picture(picture).text == read_picture(noisy).text == "250836"


def test_a_hand_drawn_frame_around_a_number_is_not_read(read_picture):
    picture = printed(["20836"], 52)
    x = np.linspace(30, 290, 60)
    upper, lower = np.stack([x, 14 + 4 * np.sin(x / 9)], 1), np.stack([x, 90 + 4 * np.sin(x / 7)], 1)
    outline = [tuple(point) for point in [*upper, *lower[::-1], upper[0]]]
    ImageDraw.Draw(picture).line(outline, 30, 3)
    assert read_picture(picture).text == "20836"


def test_a_1_that_is_nearly_as_high_as_its_box_is_read(read_picture):
    picture = boxed("25 83")
    ImageDraw.Draw(picture).line((188, 105, 192, 45), 20, 6)
    assert read_picture(picture).text == "25183"


@pytest.mark.parametrize("text", ["50384", "2023"])
def test_boxes_of_few_pixels_are_not_read_as_digits(read_picture, text):
    size, cell = 14, 20
    picture = Image.new("L", (cell * (len(text) + 2), 3 * cell), 245)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for place, digit in enumerate(text, 1):
        draw.rectangle((cell * place, cell, cell * (place + 1), 2 * cell), outline=90)
        draw.text((cell * place + 6, cell + 1), digit, 20, font)
    assert read_picture(picture).text == text


@pytest.mark.parametrize("gap", [0, 8])
def test_a_page_of_small_boxes_is_read(read_picture, gap):
    # a scan at 600 dpi; when it is reduced, the boxes become a grey pattern
    page = Image.new("L", (2600, 3600), 250)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(70)
    rows = [f"{row:02d}5203857{row:02d}" * 2 for row in range(20, 44)]
    for row, text in enumerate(rows):
        for column, digit in enumerate(text):
            x, y = 140 + column * 92, 140 + row * (130 + gap)
            draw.rectangle((x, y, x + 92 - gap, y + (110 if gap else 130)), outline=60, width=4)
            draw.text((x + 24, y + 14), digit, 20, font)
    file = BytesIO()
    page.save(file, "JPEG", quality=85)
    read_rows = [line.text for line in read_picture(file.getvalue()).lines]
    assert len(read_rows) == len(rows)
    pairs = zip(read_rows, rows, strict=True)
    correct = sum(a == b for found, row in pairs for a, b in zip(found, row, strict=False))
    assert correct > 0.97 * sum(map(len, rows))


def test_a_digit_on_a_panel_is_read(read_picture):
    panel = Image.new("L", (280, 280), 5)
    ImageDraw.Draw(panel).text((70, 20), "2", 250, ImageFont.load_default(200))
    picture = Image.new("L", (640, 480), 255)
    picture.paste(panel, (210, 70))
    (line,) = read_picture(picture).lines
    assert line.text == "2"
    left, top, width, height = line.digits[0].box
    assert 270 < left < left + width < 420
    assert 110 < top < top + height < 330


def test_slanting_lines_are_read_separately(read_picture):
    picture = printed(["20232", "85725"]).rotate(7, Image.Resampling.BICUBIC, expand=True, fillcolor=245)
    assert read_picture(picture).text == "20232\n85725"


def test_the_exif_orientation_is_applied_to_the_picture_and_its_boxes(read_picture):
    picture = printed(["2023"])
    upright = read_picture(picture)
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(file, "JPEG", quality=95, exif=exif)
    rotated = read_picture(file.getvalue())
    assert rotated.text == upright.text == "2023"
    for one, other in zip(rotated.lines[0].digits, upright.lines[0].digits, strict=True):
        assert np.abs(np.subtract(one.box, other.box)).max() <= 3


@pytest.mark.parametrize(("width", "height"), [(5, 80), (5, 95), (9, 95)])
def test_boxes_in_a_narrow_picture_do_not_extend_beyond_it(read_picture, width, height):
    pixels = np.full((height, width), 245, np.uint8)
    pixels[5:25, width // 2] = pixels[-14:, width // 2 - 1 : width // 2 + 1] = 20
    reading = read_picture(Image.fromarray(pixels))
    boxes = [digit.box for line in reading.lines for digit in line.digits] + reading.marks
    assert boxes
    assert all(y + tall <= height and x + wide <= width for x, y, wide, tall in boxes)


def test_boxes_are_in_pixels_of_the_picture_whatever_its_size(read_picture):
    small = printed(["203"], 60)
    large = small.resize((small.width * 9, small.height * 9))
    file = BytesIO()
    large.save(file, "JPEG")
    for one, other in zip(read_picture(file.getvalue()).lines, read_picture(small).lines, strict=True):
        assert one.text == other.text
        for in_large, in_small in zip(one.digits, other.digits, strict=True):
            assert np.abs(np.array(in_large.box) / 9 - in_small.box).max() < 3


def test_length_sets_the_number_of_digits(read_picture):
    picture = printed(["2023"])
    assert read_picture(picture, length=4).text == "2023"
    (line,) = read_picture(picture, length=3).lines
    assert len(line.text) == len(line.digits) == 3
    (line,) = read_picture(picture, length=40).lines
    assert line.text == "2023"
    assert line.unsure


def luhn(text: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    values = [int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(text))]
    return sum(values) % 10 == 0


@pytest.mark.parametrize("text", ["59", "2023", "85725"])
def test_check_returns_a_number_with_a_correct_check_digit(read_picture, text):
    (line,) = read_picture(printed([text]), check="luhn").lines
    assert luhn(line.text)
    assert len(line.text) > 1
    assert (line.text == text) == luhn(text)


def test_conditions_on_a_long_line_with_many_possible_cuts_take_only_seconds():
    rng = np.random.default_rng(2)
    edges = [
        Edge(start, stop, [(digit, -float(rng.random()), 0.1) for digit in range(10)], (0, 0, 1, 1))
        for start in range(80)
        for stop in range(start + 1, min(start + 5, 81))
    ]
    begun = process_time()
    best = best_readings(Graph(80, edges), 10, 40, "luhn")
    # trying all paths would take more than a minute
    assert process_time() - begun < 20
    assert best is not None
    text = "".join(str(digit) for digit, _, _ in best.digits)
    assert len(text) == 40
    assert luhn(text)


def test_alternatives_are_other_texts_sorted_by_probability(read_picture):
    (line,) = read_picture(printed(["2023"]), alternatives=3).lines
    texts = [text for text, _ in line.alternatives]
    probabilities = [probability for _, probability in line.alternatives]
    assert len(texts) == len({*texts, line.text}) - 1 == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 <= probability <= line.probability <= 1 for probability in probabilities)
    assert read_picture(printed(["2023"])).lines[0].alternatives == []


def test_more_than_five_thousand_digits_are_refused(classifier):
    picture = np.full((1300, 1100), 255, np.uint8)
    for y in range(10, 1270, 16):
        for x in range(10, 1080, 15):
            picture[y : y + 11, x : x + 3] = 0

    def ones(images: np.ndarray) -> np.ndarray:
        return np.tile(np.eye(10, dtype=np.float32)[1], (len(images), 1))

    with pytest.raises(PictureError, match="5,000 digits") as refusal:
        read(png(Image.fromarray(picture)), "image", ones, 0.9)
    assert refusal.value.status == 413


def test_a_picture_over_the_callers_limit_is_not_decoded(read_picture):
    with pytest.raises(HugePictures):
        read_picture(printed(["2"]), max_pixels=100)


def test_noise_and_patterns_are_not_read_as_numbers(read_picture):
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 256, (500, 600)).astype(np.uint8)
    blocks = np.kron(rng.integers(0, 2, (40, 40)), np.ones((10, 10))).astype(np.uint8) * 255
    board = (np.indices((400, 400)) // 20).sum(0).astype(np.uint8) % 2 * 255
    for picture in (noise, np.pad(blocks, 40, constant_values=255), board):
        assert sum(len(line.text) for line in read_picture(Image.fromarray(picture)).lines) <= 6


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 60), st.integers(1, 60))),
    times=st.integers(1, 4),
    length=st.none() | st.integers(1, 9),
    check=st.sampled_from([None, "luhn"]),
)
def test_the_reading_of_any_picture_is_consistent(read_picture, pixels, times, length, check):
    picture = Image.fromarray(np.kron(pixels, np.ones((times, times), np.uint8)))
    reading = read_picture(picture, length=length, check=check, alternatives=2)
    assert reading.text == "\n".join(line.text for line in reading.lines)
    for line in reading.lines:
        assert line.text == "".join(str(digit.digit) for digit in line.digits)
        assert 0 <= line.probability <= 1
    for x, y, width, height in [digit.box for line in reading.lines for digit in line.digits] + reading.marks:
        assert 0 <= x < x + width <= picture.width
        assert 0 <= y < y + height <= picture.height


def test_a_file_that_is_not_a_picture_is_refused(read_picture):
    with pytest.raises(PictureError) as refusal:
        read_picture(b"no picture")
    assert refusal.value.status == 415
