"""Whatever a client sends to POST /predict becomes a batch of images, or a Problem that says what is wrong
with it. app.py, reading.py and protocols/mlflow.py call this. A batch is float32 (n, 28, 28, 1) with
values in [0, 1].

Pixels, as JSON or raw, are taken as they are, only scaled; pictures are prepared (digits/imaging).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import flask
import numpy as np
import orjson

from digits.imaging import HugePictures, prepare
from digits.imaging.find import MIN_CONTRAST
from digits.model import scale
from digits.serving.errors import Problem
from digits.serving.service import service

SIDE = 28
PIXELS = SIDE * SIDE
WANTED = "28 rows of 28 numbers from 0 to 255 (or 28x28x1, or 784 numbers), or a picture in base64"
FORM = "multipart/form-data"
PICTURES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")
# how their files begin
SIGNATURES = re.compile(
    rb"(?s)(?P<png>\x89PNG\r\n\x1a\n)|(?P<jpeg>\xff\xd8\xff[\xc0-\xfe])|(?P<webp>RIFF.{4}WEBP)|(?P<bmp>BM.{4}\0{4})"
    rb"|(?P<gif>GIF8[79]a)|(?P<tiff>II\*\0|MM\0\*)"
)
# a larger body is decoded in another thread; an image as JSON has 2 to 4 KB
MAX_QUICK_BYTES = 1 << 16
# pictures with no more pixels are prepared in about 2 ms, and a thread would cost another
MAX_QUICK_PIXELS = 300 * 300
# pictures that need more pixels in memory are prepared one request at a time, so that a worker stays below 400 MB
MAX_SHARED_PIXELS = 16_000_000


@dataclass(frozen=True)
class Items:
    """What a body holds: of each image the pixels, 784 numbers from 0 to 255, or of each the bytes of a picture.

    names: what to call each in a problem. single: whether one answer is wanted rather than a list.
    """

    values: list[np.ndarray] | list[bytes]
    names: list[str]
    single: bool

    @property
    def pictures(self) -> list[bytes]:
        """The values if they are pictures, else nothing: a request has only pictures or only pixels."""
        return [value for value in self.values if isinstance(value, bytes)]


# (body, most images) -> what it holds
Decoder = Callable[[bytes, int], Items]


def items_of(
    request: flask.Request, max_batch: int, decoders: Mapping[str, Decoder] | None = None
) -> tuple[Items, bool]:
    """The request's images by its Content-Type, and whether pictures are to be taken as they are.

    JSON asks for one answer by `image`, for a list by `images`; otherwise one image gets one, several get a list.
    decoders: by Content-Type, beside forms; by default DECODERS. Raises Problem: 400 for malformed JSON, 413 for
    more than `max_batch` images, 415 for another content type, 422 for what is no image.
    """
    kind = request.mimetype
    decoders = DECODERS if decoders is None else decoders
    as_is = bool(request.query_string) and _as_is(request)
    if kind == FORM:
        return from_form(request, max_batch), as_is
    if kind in decoders:
        body = request.get_data(cache=False)
        decode = partial(decoders[kind], body, max_batch)
        return decode() if kind in PICTURES else in_turn(body, decode), as_is
    accepted = [*decoders, FORM]
    raise Problem(
        415,
        "Send JSON, a picture or a form with files, and say which by the header Content-Type.",
        headers={"Accept-Post": ", ".join(accepted)},
        found=kind or None,
        accepted=accepted,
    )


def in_turn(body: bytes, decode: Callable[[], Any]) -> Any:
    """What `decode` returns; in another thread if it has a large body to read, so that others need not wait."""
    return service().offload(decode) if len(body) > MAX_QUICK_BYTES else decode()


def to_batch(items: Items, as_is: bool = False) -> np.ndarray:
    """float32 (n, 28, 28, 1) in [0, 1] of a request's images; pictures are prepared, large ones in another thread.

    as_is: take pictures of 28x28 pixels as they are. Raises PictureError, and Problem 422 for an image of pixels
    that shows nothing.
    """
    if pictures := items.pictures:
        work = partial(prepare, pictures, items.names, as_is)
        with suppress(HugePictures):
            return scale(work(max_pixels=MAX_QUICK_PIXELS))
        try:
            return scale(service().offload(partial(work, max_pixels=MAX_SHARED_PIXELS)))
        except HugePictures:
            return scale(service().offload(work, "alone"))
    pixels = np.stack(items.values)
    if problem := blank(pixels):
        name = items.names[problem[0]]
        raise Problem(422, f"{name} {problem[1]}", field=name, found="an empty image")
    return scale(pixels)


def blank(pixels: np.ndarray, top: int = 255) -> tuple[int, str] | None:
    """The first of n images, values from 0 to `top`, in which no digit can be seen, and why; None if all show one.

    The network knows no empty image, and would call it a 1 and be sure of it.
    """
    least = MIN_CONTRAST * top / 255
    # the usual case in an eighth of the time
    if len(pixels) == 1 and pixels.max() - pixels.min() >= least:
        return None
    rows = pixels.reshape(len(pixels), -1)
    highest, lowest = rows.max(1), rows.min(1)
    faint = np.flatnonzero(highest - lowest < least)
    if not len(faint):
        return None
    first = int(faint[0])
    if top == 255 and lowest[first] < highest[first] <= 1:
        return first, "has values from 0 to 1: multiply them by 255."
    return first, "shows nothing: its pixels hardly differ."


def limit(n: int, max_batch: int) -> None:
    """Raise Problem 413 if n images are more than `max_batch`."""
    if n > max_batch:
        raise Problem(
            413, f"At most {max_batch} images are accepted per request.", field="images", found=f"{n} images"
        )


def from_form(request: flask.Request, max_batch: int) -> Items:
    """A form's files, each a picture. A browser sends an input without a file as one without name and content;
    it is passed over.

    Raises Problem: 400 for a form without a boundary, 422 if there is no file, 413 for more than `max_batch`.
    """
    if not request.mimetype_params.get("boundary"):
        raise Problem(400, "The Content-Type of the form names no boundary: let the client's library set it.")
    sent = [(name, file.filename, file.read()) for name, many in request.files.lists() for file in many]
    files = [(name, content) for name, filename, content in sent if filename or content]
    if not files:
        raise Problem(422, "The form has no file.", field="image", found="no file")
    limit(len(files), max_batch)
    single = len(files) == 1
    names = [name if single else f"{name} ({i})" for i, (name, _) in enumerate(files)]
    return Items([content for _, content in files], names, single)


def from_picture(body: bytes, max_batch: int) -> Items:
    """A body that is a picture."""
    return Items([body], ["the body"], True)


def _as_is(request: flask.Request) -> bool:
    """Whether `?prepare=none` says to take pictures as they are. Raises Problem 422 for another value."""
    return _asked(request.args.get("prepare", "mnist"), "prepare", "mnist", "none")


def wants_detail(request: flask.Request) -> bool:
    """Whether `?detail=1` asks for all probabilities and the image seen. Raises Problem 422 for another value."""
    return _asked(request.args.get("detail", "0"), "detail", "0", "1")


def _asked(given: str, name: str, default: str, other: str) -> bool:
    if given not in (default, other):
        raise Problem(422, f"{name} is to be {default} or {other}.", field=name, found=given[:40])
    return given == other


def from_raw(body: bytes, max_batch: int) -> Items:
    """n x 784 bytes, row by row.

    Raises Problem: 415 for a picture, 422 for another length or for floats, 413 for more than `max_batch` images.
    """
    if begins := SIGNATURES.match(body):
        kind = f"image/{begins.lastgroup}"
        raise Problem(415, f"The body is a picture: send it with Content-Type: {kind}.", found=kind)
    if floats := next((kind for kind in ("<f4", "<f8") if _are_floats(body, kind)), None):
        found = f"{np.dtype(floats)} numbers"
        raise Problem(422, "Raw pixels must be one byte each, from 0 to 255.", field="the body", found=found)
    n, rest = divmod(len(body), PIXELS)
    if rest or not n:
        raise Problem(
            422, "Raw pixels must be 784 bytes per image.", field="the body", found=f"{len(body)} bytes"
        )
    limit(n, max_batch)
    names = ["the body"] if n == 1 else [f"image {i} of the body" for i in range(n)]
    return Items(list(np.frombuffer(body, np.uint8).reshape(n, PIXELS)), names, n == 1)


def _are_floats(body: bytes, kind: str) -> bool:
    """Whether the bytes make sense as pixels of that floating-point type, as bytes of images do not."""
    if not body or len(body) % (PIXELS * np.dtype(kind).itemsize):
        return False
    values = np.frombuffer(body, kind)
    ink = values[values != 0]
    # NaN is in no range
    return bool(len(ink)) and bool(((ink >= 1 / 512) & (ink <= 255)).all())


def from_json(body: bytes, max_batch: int) -> Items:
    """`{"image": ...}` or `{"images": [...]}`.

    Raises Problem: 400 for malformed JSON, 413 for more than `max_batch` images, 422 for what is no image.
    """
    return from_document(parse(body), body, max_batch)


def from_document(
    document: Any, body: bytes, max_batch: int, read_pixels: Callable[..., np.ndarray] | None = None
) -> Items:
    """The same of the document that was parsed from `body`. read_pixels: of one image, if not as usual."""
    read_pixels = read_pixels or _pixels
    if not isinstance(document, dict):
        raise Problem(
            422,
            'A JSON object {"image": ...} or {"images": [...]} is required.',
            field="",
            found=kind_of(document),
        )
    if "image" in document and "images" in document:
        raise Problem(422, "Send either image or images, not both.", field="images", found="both")
    # JSON's true is Python's 1 to bytes() and NumPy; looking for the word costs far less than at 784 types
    suspicious = b"true" in body or b"false" in body
    if "image" in document:
        image = document["image"]
        if isinstance(image, str):
            return Items([_from_base64(image, "image")], ["image"], True)
        return Items([read_pixels(image, "image", suspicious)], ["image"], True)
    if "images" not in document:
        raise Problem(422, "The field image (or images) is missing.", field="image", found="nothing")
    images = document["images"]
    if not isinstance(images, list):
        raise Problem(422, "images must be a list of images.", field="images", found=kind_of(images))
    if not images:
        raise Problem(422, "images is empty.", field="images", found="an empty list")
    limit(len(images), max_batch)
    names = [f"images[{i}]" for i in range(len(images))]
    texts = sum(isinstance(image, str) for image in images)
    if texts not in (0, len(images)):
        raise Problem(422, "images must be all pixels or all pictures.", field="images", found="both")
    pairs = zip(images, names, strict=True)
    if texts:
        return Items([_from_base64(image, name) for image, name in pairs], names, False)
    return Items([read_pixels(image, name, suspicious) for image, name in pairs], names, False)


DECODERS: dict[str, Decoder] = {
    "application/json": from_json,
    "application/octet-stream": from_raw,
    **dict.fromkeys(PICTURES, from_picture),
}
ACCEPTED_TYPES = (*DECODERS, FORM)


def _from_base64(text: str, name: str) -> bytes:
    """The bytes of a picture in base64, bare or as a data: URL (RFC 2397)."""
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise Problem(
                422, f"{name} is to be a data: URL in base64.", field=name, found="another data: URL"
            )
        text = unquote(text)
    try:
        return decode_base64(text)
    except ValueError:
        raise Problem(422, f"{name} is neither pixels nor base64.", field=name, found="a string") from None


def decode_base64(text: str) -> bytes:
    """The bytes that base64 stands for: with line breaks as `base64 FILE` writes them or without, in the standard
    or the URL-safe alphabet, padded or not (RFC 4648). Raises ValueError."""
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def parse(body: bytes) -> Any:
    """The JSON document in `body`. Raises Problem 400 with the place of the mistake."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        strict = error
    # Python's parser also reads NaN and Infinity; with them the document gets an answer that names the pixel
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        raise Problem(
            400, f"The body is not valid JSON: {strict.msg}", line=strict.lineno, column=strict.colno
        ) from None


def _pixels(image: Any, field: str, suspicious: bool) -> np.ndarray:
    """The 784 pixels of one image, uint8 where the quick way reads it, else float32; Problem 422 if it is none."""
    if isinstance(image, list) and not suspicious:
        # the usual case at C speed: bytes() takes whole numbers from 0 to 255 and nothing else
        try:
            if len(image) == SIDE and set(map(len, image)) == {SIDE}:
                return np.frombuffer(b"".join(map(bytes, image)), np.uint8)
            if len(image) == PIXELS:
                return np.frombuffer(bytes(image), np.uint8)
        except (TypeError, ValueError):
            pass
    return _careful(image, field)


def _careful(image: Any, field: str) -> np.ndarray:
    if not isinstance(image, list):
        raise Problem(422, f"{field} is to be {WANTED}.", field=field, found=kind_of(image))
    if not image:
        raise Problem(422, f"{field} is empty; {WANTED} are wanted.", field=field, found="an empty list")
    if not isinstance(image[0], list):
        if len(image) != PIXELS:
            raise Problem(422, f"{field} is to be {WANTED}.", field=field, found=f"a list of {len(image)}")
        return np.array([_number(v, f"{field}[{i}]") for i, v in enumerate(image)], np.float32)
    if len(image) != SIDE:
        raise Problem(422, f"{field} is to have 28 rows.", field=field, found=f"{len(image)} rows")
    numbers = []
    for y, row in enumerate(image):
        if not isinstance(row, list):
            raise Problem(
                422, f"{field}[{y}] is to be a row of 28 numbers.", field=f"{field}[{y}]", found=kind_of(row)
            )
        if len(row) != SIDE:
            raise Problem(
                422,
                f"{field}[{y}] is to have 28 numbers.",
                field=f"{field}[{y}]",
                found=f"{len(row)} numbers",
            )
        for x, value in enumerate(row):
            where = f"{field}[{y}][{x}]"
            if isinstance(value, list):
                if len(value) != 1:
                    raise Problem(
                        422, f"{where} is to be one number.", field=where, found=f"a list of {len(value)}"
                    )
                value, where = value[0], where + "[0]"
            numbers.append(_number(value, where))
    return np.array(numbers, np.float32)


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Problem(422, f"{field} is to be a number from 0 to 255.", field=field, found=kind_of(value))
    # NaN compares false with everything, so it fails here too
    if not 0 <= value <= 255:
        found = repr(value) if isinstance(value, float) or abs(value) < 10**30 else "a huge number"
        found = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(found, found)
        raise Problem(422, f"{field} is outside 0 to 255.", field=field, found=found)
    return value


def kind_of(value: Any) -> str:
    """What a JSON value is, in JSON's words; never the value itself, which may be long or private."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
