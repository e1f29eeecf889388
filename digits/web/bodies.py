"""Converts the body of a request to a batch of images, float32 (n, 28, 28, 1) in [0, 1], or raises a Problem
that says what is wrong with it. Pixels, as JSON or raw bytes, are only scaled. Pictures are prepared by
digits/imaging."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import flask
import numpy as np
import orjson

from digits.imaging import CostlyPictures, Prepared, prepare_pages
from digits.imaging.formats import TYPES, format_of
from digits.imaging.inputs import blank, decode_base64
from digits.model import scale
from digits.reading.search import locate
from digits.web.problems import Problem
from digits.web.service import service

# height and width of an image in pixels, and their number
SIDE = 28
PIXELS = SIDE * SIDE
IMAGE_FORMATS = "28 rows of 28 numbers from 0 to 255 (or 28x28x1, or 784 numbers), or a picture in base64"
FIELDS = '{"image": ...} or {"images": [...]}'
FORM = "multipart/form-data"
# the Content-Types of pictures
PICTURES = tuple(dict.fromkeys(TYPES.values()))
# a picture's bytes say what its format is, so its type need not; SageMaker's clients send the last one
ANY_PICTURE = "image/", "application/pdf", "application/x-image"
# wider types of numbers that clients send as raw pixels; the widest first, whose halves may look like others
WIDE = ("<f8", ">f8", "<f4", ">f4", "<i8", ">i8", "<i4", ">i4")
# bytes and pixels of the largest picture that is prepared in the event loop
MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS = 1 << 16, 300 * 300
# a picture that contains this is not, because its header doesn't show what it costs
COSTLY = re.compile(rb"zTXt|iTXt|iCCP|\xff\xc2")
# longest name of a form's field in a problem
MAX_NAME = 80
# larger bodies are decoded in another process; an image as JSON has 2 to 4 KB
MAX_QUICK_BYTES = 1 << 16
# still larger ones only wait for each other, so that pictures and ordinary batches do not wait for them
MAX_SHARED_BYTES = 1 << 20
# orjson takes twelve bytes of memory for each byte of a document before it parses, Python's parser does not, but
# takes twice the time; 1,024 images of handwriting have 2.7 MB
MAX_ORJSON_BYTES = 2_800_000
# the most bytes of memory for each list, object, quote and value of a JSON document, and for each byte of one that
# consists of these
LIST, DICT, QUOTE, VALUE, GROWTH = 72, 240, 32, 36, 64


@dataclass(frozen=True)
class Items:
    """The images in a body.

    Attributes:
        values: pixels (n, 784), from 0 to 255, or the bytes of a picture for each image.
        names: what to call each image in a problem.
        single: whether to answer with an object rather than a list.
    """

    values: np.ndarray | list[bytes]
    names: list[str]
    single: bool

    @property
    def pictures(self) -> list[bytes]:
        """The values if they are pictures, or an empty list if they are pixels; a request can't mix them."""
        return self.values if isinstance(self.values, list) else []


# a body -> its images
Decoder = Callable[[bytes], Items]


def items_of(request: flask.Request, decoders: Mapping[str, Decoder] | None = None) -> Items:
    """The request's images.

    In JSON, `image` asks for a single answer and `images` for a list. In the other formats, one image gets a
    single answer and several get a list.

    Args:
        request: the request, whose body has not been read yet.
        decoders: for each Content-Type except forms; by default DECODERS.

    Raises Problem: 400 for malformed JSON or a malformed form, 413 for more images than DIGITS_MAX_BATCH, 415 for
    another Content-Type, 422 for anything that is not an image.
    """
    media_type, decoders = request.mimetype, decoders or DECODERS
    if media_type == FORM:
        return from_form(request)
    if media_type.startswith(ANY_PICTURE):
        return from_picture(request.get_data(cache=False))
    if media_type in decoders:
        body = request.get_data(cache=False)
        return offload_if_large(body, partial(decoders[media_type], body))
    accepted = [*decoders, FORM]
    detail = "Send JSON, a picture or a form with files, and name its type in the Content-Type header."
    headers = {"Accept-Post": ", ".join(accepted)}
    raise Problem(415, detail, headers=headers, found=media_type or None, accepted=accepted)


def offload_if_large(body: bytes, decode: Callable[[], Any]) -> Any:
    """Call `decode` and return its result. A large `body` is decoded in another process, so that other requests do
    not wait for it.

    decode: must be picklable, such as a partial of a module's function. Raises Problem 413 if the body would take
    too much memory.
    """
    if len(body) <= MAX_QUICK_BYTES:
        return decode()
    most = service().settings.max_unpacked_bytes
    if len(body) > most // GROWTH and (needed := unpacked_bytes(body)) > most:
        problem = f"takes more than the {most} bytes of memory that a request may use when it is unpacked."
        raise Problem.of("the body", problem, 413, found=f"{needed} bytes")
    return service().offload(decode, "shared" if len(body) <= MAX_SHARED_BYTES else "bodies")


def unpacked_bytes(body: bytes) -> int:
    """The most bytes of memory that a JSON document takes, with copies of it and the objects made of it."""
    lists, dicts, quotes, values = map(body.count, (b"[", b"{", b'"', b","))
    # text may take four bytes for a character
    wide = not body.isascii() or body.count(b"\\u") > body.count(b"\\u00")
    containers = LIST * lists + DICT * dicts + VALUE * (lists + dicts + values)
    return (10 if wide else 4) * len(body) + containers + QUOTE * quotes


def to_batch(items: Items, as_is: bool = False) -> tuple[np.ndarray, list[dict[str, int]]]:
    """float32 (n, 28, 28, 1) in [0, 1] from a request's images, and for each picture `page` and `pages` if its
    file has several pages. Another process prepares large or several pictures.

    Args:
        items: the images.
        as_is: whether to use pictures of 28x28 pixels without preparing them.

    Raises PictureError, and Problem 422 for pixels that are blank.
    """
    values, names = items.values, items.names
    if isinstance(values, list):
        found: list[Prepared] = []
        if len(values) == 1 and is_quick(values[0]):
            with suppress(CostlyPictures):
                found = prepare_pages(values, names, as_is, max_pixels=MAX_PICTURE_PIXELS)
        found = found or service().offload(partial(_prepare, values, names, as_is))
        pages = [{"page": each.page, "pages": each.pages} if each.pages > 1 else {} for each in found]
        return scale(np.stack([each.image for each in found])), pages
    if problem := blank(values):
        index, what = problem
        image = values[index]
        raise Problem.of(names[index], what, found=f"values from {image.min():g} to {image.max():g}")
    return scale(values), []


def is_quick(picture: bytes) -> bool:
    """Whether a picture's cost is bounded by its number of bytes and of pixels."""
    found = format_of(picture) if len(picture) <= MAX_PICTURE_BYTES else None
    return found is not None and found.quick and not COSTLY.search(picture)


def _prepare(pictures: list[bytes], names: list[str], as_is: bool) -> list[Prepared]:
    # runs in another process, and the detector can't be pickled
    return prepare_pages(pictures, names, as_is, partial(locate, service().detector))


def check_count(n: int) -> None:
    """Raise Problem 413 if n images are more than DIGITS_MAX_BATCH."""
    most = service().settings.max_batch
    if n > most:
        detail = f"At most {most} images are accepted per request."
        raise Problem(413, detail, field="images", found=f"{n} images")


def from_form(request: flask.Request) -> Items:
    """The pictures in a form's files. Files without a name and content are skipped, because browsers send them for
    empty file inputs.

    Raises Problem: 400 for a malformed form, 422 if there is no file or an empty one, 413 for too many.
    """
    if not request.mimetype_params.get("boundary"):
        raise Problem(400, "The form's Content-Type has no boundary. Let the client library set the header.")
    files = [
        ((name or "file")[:MAX_NAME], content)
        for name, many in request.files.lists()
        for file in many
        if (content := file.read()) or file.filename
    ]
    if not files:
        raise Problem(422, "The form has no file.", field="image", found="no file")
    check_count(len(files))
    single = len(files) == 1
    names = [name if single else f"{name} ({i})" for i, (name, _) in enumerate(files)]
    pictures = [_not_empty(content, name) for (_, content), name in zip(files, names, strict=True)]
    return Items(pictures, names, single)


def from_picture(body: bytes) -> Items:
    """The picture that is the whole body. Raises Problem 422 if it is empty."""
    return Items([_not_empty(body, "the body")], ["the body"], True)


def _not_empty(picture: bytes, name: str) -> bytes:
    if not picture:
        raise Problem.of(name, "is empty.", found="0 bytes")
    return picture


def from_raw(body: bytes) -> Items:
    """The pixels of n images from n x 784 bytes, row by row.

    Raises Problem: 415 for a picture, 422 for another length or for wider numbers, 413 for too many images.
    """
    refuse_picture(body)
    n, rest = divmod(len(body), PIXELS)
    wide = [f"{np.dtype(dtype).name} numbers" for dtype in WIDE if are_wide(body, dtype)]
    if rest or not n or wide:
        found = wide[0] if wide else f"{len(body)} bytes"
        raise Problem.of("the body", "must have 784 bytes per image, one for each pixel.", found=found)
    check_count(n)
    names = ["the body"] if n == 1 else [f"image {i} of the body" for i in range(n)]
    return Items(np.frombuffer(body, np.uint8).reshape(n, PIXELS), names, n == 1)


def refuse_picture(body: bytes) -> None:
    """Raise Problem 415 if raw bytes are a picture's file."""
    if found := format_of(body):
        media_type = next(iter(found.types), "image/bmp")
        detail = f"The body is a picture. Send it with Content-Type: {media_type}."
        raise Problem(415, detail, found=media_type)


def are_wide(body: bytes, dtype: str) -> bool:
    """Whether the bytes are plausible pixels of that wider type. Pixels of one byte each that can be classified
    never are."""
    if not body or len(body) % (PIXELS * np.dtype(dtype).itemsize):
        return False
    values = np.frombuffer(body, dtype)
    if values.dtype.kind == "i":
        # as single bytes, these are images of which at least one is blank
        plausible = values.min() >= 0 and 1 < values.max() <= 255
        return bool(plausible) and blank(np.frombuffer(body, np.uint8).reshape(-1, PIXELS)) is not None
    ink = values[values != 0]
    # the comparisons also exclude NaN
    return bool(len(ink)) and bool(((ink >= 1 / 512) & (ink <= 255)).all())


def from_json(body: bytes) -> Items:
    """The images in `{"image": ...}` or `{"images": [...]}`.

    Raises Problem: 400 for malformed JSON, 413 for too many images, 422 for anything that is not an image.
    """
    return from_document(parse_object(body, FIELDS), body)


def from_document(
    document: dict[str, Any], body: bytes, read_pixels: Callable[..., Any] | None = None
) -> Items:
    """Like `from_json`, for a document that was parsed from `body`.

    read_pixels: (image, its name, whether `body` has true or false) -> its 784 pixels. By default they are read
    from 28 rows or one list.
    """
    read_pixels = read_pixels or _pixels
    single = "image" in document
    if single and "images" in document:
        raise Problem(422, "Send either image or images, not both.", field="images", found="both")
    if not single and "images" not in document:
        raise Problem(422, "The field image (or images) is missing.", field="image", found="nothing")
    images = [document["image"]] if single else document["images"]
    if not isinstance(images, list) or not images:
        raise Problem.of("images", "must be a list of images.", found=json_type(images))
    check_count(len(images))
    names = ["image"] if single else [f"images[{i}]" for i in range(len(images))]
    # bytes() and NumPy take true for 1; searching the body for the word is faster than checking 784 types
    suspicious = b"true" in body or b"false" in body
    pictures: list[bytes] = []
    pixels: list[np.ndarray] = []
    for image, name in zip(images, names, strict=True):
        if isinstance(image, str):
            pictures.append(_from_base64(image, name))
        else:
            pixels.append(read_pixels(image, name, suspicious))
    if pictures and pixels:
        raise Problem.of("images", "must be either all pixels or all pictures.", found="both")
    return Items(pictures or (pixels[0][None] if single else np.stack(pixels)), names, single)


# for each Content-Type except forms
DECODERS: dict[str, Decoder] = {
    "application/json": from_json,
    "application/octet-stream": from_raw,
    **dict.fromkeys(PICTURES, from_picture),
}


def _from_base64(text: str, name: str) -> bytes:
    """The bytes of a picture in base64, with or without the prefix of a data: URL."""
    try:
        picture = decode_base64(text)
    except ValueError as error:
        raise Problem.of(name, f"{error}.", found="a string") from None
    return _not_empty(picture, name)


def parse_object(body: bytes, members: str, status: int = 422) -> dict[str, Any]:
    """The JSON object in `body`, such as `members`. Raises Problem: 400 for malformed JSON, if possible with the
    line and column of the error, and `status` for another value."""
    document = _parse(body)
    if not isinstance(document, dict):
        detail = f"A JSON object {members} is required."
        raise Problem(status, detail, field="", found=json_type(document))
    return document


def _parse(body: bytes) -> Any:
    if len(body) <= MAX_ORJSON_BYTES:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    # Python's parser also accepts NaN and Infinity, so that a later error can name the pixel
    try:
        text = body.decode("utf-8-sig")
        if not text or text.isspace():
            raise Problem(400, "The body is empty, but must be JSON.")
        return json.loads(text)
    except UnicodeDecodeError:
        raise Problem(400, "The body is not valid JSON: it is not UTF-8.") from None
    except json.JSONDecodeError as error:
        detail = f"The body is not valid JSON: {error.msg}."
        raise Problem(400, detail, line=error.lineno, column=error.colno) from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply, or has too long a number"
        raise Problem(400, f"The body is not valid JSON: {reason}.") from error


def _pixels(image: Any, field: str, suspicious: bool) -> np.ndarray:
    """The 784 pixels of one image, as uint8 if all are integers, else as float32. Raises Problem 422."""
    if isinstance(image, list) and not suspicious:
        # the usual case at C speed: bytes() only accepts integers from 0 to 255
        try:
            if len(image) == SIDE and set(map(len, image)) == {SIDE}:
                return np.frombuffer(b"".join(map(bytes, image)), np.uint8)
            if len(image) == PIXELS:
                return np.frombuffer(bytes(image), np.uint8)
        except (TypeError, ValueError):
            pass
    if not isinstance(image, list) or len(image) not in (SIDE, PIXELS):
        raise Problem.of(field, f"must be {IMAGE_FORMATS}.", found=json_type(image))
    shape = (PIXELS,) if len(image) == PIXELS else (SIDE, SIDE)
    alone = len(image) == SIDE and isinstance(image[0], list) and isinstance(next(iter(image[0]), None), list)
    return np.array(_numbers(image, field, *shape, *((1,) if alone else ())), np.float32)


def _numbers(value: Any, field: str, *shape: int) -> list[float]:
    """The numbers from 0 to 255 in nested lists of a shape. Raises Problem 422."""
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            problem = "must be a row of 28 numbers." if shape[0] > 1 else "must be a list of one number."
            raise Problem.of(field, problem, found=json_type(value))
        # the usual case at C speed; with a NaN, the sum is not equal to itself
        numbers = len(shape) == 1 and set(map(type, value)) <= {int, float}
        if numbers and min(value) >= 0 and max(value) <= 255 and sum(value) == sum(value):
            return value
        parts = (_numbers(each, f"{field}[{i}]", *shape[1:]) for i, each in enumerate(value))
        return list(chain.from_iterable(parts))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Problem.of(field, "must be a number from 0 to 255.", found=json_type(value))
    # NaN compares false with everything, so it fails here too
    if not 0 <= value <= 255:
        found = json.dumps(value) if isinstance(value, float) or abs(value) < 10**30 else "a huge number"
        raise Problem.of(field, "must be from 0 to 255.", found=found)
    return [value]


def json_type(value: Any) -> str:
    """The type of a JSON value, and a list's length. The value itself may be long or private, so problems don't
    quote it."""
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    types = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return types.get(type(value), "an object")
