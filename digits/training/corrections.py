"""The pipeline's `corrections` stage: `python -m digits.training.corrections` fetches the corrected pictures that
a service has collected, and writes them to data/corrections.npz, and to contact sheets for a person to look at
before they are trained on. Without a source both are empty. docs/loop.md describes the way of a correction."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from PIL import Image

from digits.imaging import PictureError, prepare_grey
from digits.imaging.decode import decode_grey, open_picture
from digits.training.arrays import Arrays, write
from digits.training.corrected import CORRECTIONS
from digits.training.plots import SHOWN, contact_sheet
from digits.training.stage import ROOT, StageError, outputs, read_params, run

# the label of an image that shows no digit, as in digits/training/network.py, which would load TensorFlow
NO_DIGIT = 10
# a digit is cut out of a picture with this much around it, as a fraction of the longer side of its box
MARGIN = 0.25
# rows of a contact sheet
ROWS = 40
SHEETS = ROOT / "metrics" / "corrections"

# an image, its label, and its id
Corrected = tuple[np.ndarray, int, str]


@dataclass(frozen=True)
class Params:
    """`corrections` in params.yaml. source: the folder or URL in which a service collects (DIGITS_COLLECT), or "".
    held_out: the fraction of requests whose corrections are only for comparing models."""

    source: str
    held_out: float


def documents(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The corrections in a store, by request id: the name and the content of each file, as digits/web/store.py
    has written it. Raises StageError if the store can't be read or has a file that is no correction."""
    try:
        system, root = fsspec.core.url_to_fs(source)
        if not system.exists(root):
            raise StageError(f"params.yaml: corrections.source is {source}, which does not exist.")
        found = [path for path in system.find(f"{root}/corrected") if path.endswith(".json")]
        contents = {path: system.cat_file(path) for path in found}
    except (OSError, ValueError, ImportError) as error:
        raise StageError(f"{source} can't be read: {error}") from None
    for path in sorted(contents, key=lambda path: path.rsplit("/", 1)[1]):
        try:
            document = json.loads(contents[path])
            yield str(document["request_id"]), document
        except (ValueError, KeyError, TypeError):
            raise StageError(f"{path} is not a correction. Remove it.") from None


def images_of(request_id: str, document: dict[str, Any]) -> Iterator[Corrected]:
    """The images of one correction. Raises PictureError for a picture in which nothing is found."""
    for picture in document["pictures"]:
        index, said = picture["index"], document["digits"][picture["index"]]
        if said is None:
            continue
        name = f"{request_id}-{index}"
        if isinstance(said, int | str) and "pixels" in picture:
            pixels = base64.b64decode(picture["pixels"])
            label = NO_DIGIT if said == "no digit" else int(said)
            yield np.frombuffer(pixels, np.uint8).reshape(28, 28), label, name
            continue
        data = base64.b64decode(picture["picture"])
        for page, digits in _pages(said, picture["answer"]):
            grey = decode_grey(open_picture(data, name, None, page).picture, name)
            for place, (label, box) in enumerate(digits):
                inside = f"{name}-{page}-{place}"
                yield image_in(grey, box, inside), label, inside


def _pages(said: Any, answer: dict[str, Any]) -> Iterator[tuple[int, list[tuple[int, list[int]]]]]:
    """The pages of a reading, from 1, with the label and the box of each digit. If it shows no digit, those that
    were read are none."""
    if said == "no digit":
        for reading in answer.get("readings", [answer]):
            boxes = [digit["box"] for line in reading["lines"] for digit in line["digits"]]
            yield reading.get("page", 1), [(NO_DIGIT, box) for box in boxes]
        return
    for lines in said if isinstance(said, list) else [said]:
        digits = map(int, "".join(lines["text"].split()))
        yield lines.get("page", 1), list(zip(digits, lines["boxes"], strict=True))


def image_in(grey: np.ndarray, box: list[int], name: str) -> np.ndarray:
    """The image of what is in a box (x, y, width, height) of a picture, uint8 (height, width). Raises PictureError
    if the box is outside the picture, or has nothing in it."""
    x, y, width, height = box
    margin = round(MARGIN * max(width, height))
    left, top = max(0, x - margin), max(0, y - margin)
    part = grey[top : y + height + margin, left : x + width + margin]
    if not part.size:
        raise PictureError("content", name, "has a box outside the picture.", found=str(box))
    # where people say that the digit is, which the service asks the detector
    place = float(x - left), float(y - top), float(x - left + width), float(y - top + height)
    return prepare_grey(part, name, lambda _: place)


def is_held_out(request_id: str, fraction: float) -> bool:
    """Whether a request's corrections are for comparing models. It depends on nothing but the id, so that it stays
    when others are added."""
    number = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")
    return number < fraction * 2**64


def fetch(source: str, held_out: float) -> tuple[Arrays, list[str]]:
    """The arrays of data/corrections.npz, and what is wrong with each picture that could not be used."""
    rows, problems = [], []
    for request_id, document in documents(source) if source else ():
        held = is_held_out(request_id, held_out)
        try:
            for image, label, name in images_of(request_id, document):
                rows.append((image, label, held, name))
        except PictureError as error:
            problems.append(f"{request_id}: {error}")
        except (KeyError, IndexError, ValueError, TypeError) as error:
            reason = type(error).__name__
            raise StageError(f"The correction of {request_id} is damaged ({reason}). Remove it.") from None
    images, labels, helds, ids = zip(*rows, strict=True) if rows else ((),) * 4
    arrays = {
        "images": np.array(images, np.uint8).reshape(-1, 28, 28),
        "labels": np.array(labels, np.uint8),
        "held_out": np.array(helds, bool),
        "ids": np.array(ids, "U"),
    }
    return arrays, problems


def sheets(arrays: Arrays) -> Iterator[Image.Image]:
    """Contact sheets of all images, sorted by their labels."""
    rows = []
    for label in range(NO_DIGIT + 1):
        name = "no digit" if label == NO_DIGIT else str(label)
        shown = arrays["images"][arrays["labels"] == label]
        rows += [(f"{name} ({i + 1}-)", shown[i : i + SHOWN]) for i in range(0, len(shown), SHOWN)]
    for i in range(0, max(1, len(rows)), ROWS):
        yield contact_sheet(dict(rows[i : i + ROWS]))


def main() -> None:
    """Fetch the corrections, and write data/corrections.npz and the contact sheets."""
    params = read_params("corrections", Params)
    parser = argparse.ArgumentParser(description="Fetch the corrected pictures that a service has collected.")
    parser.add_argument("--source", default=params.source, help="replaces the one in params.yaml")
    parser.add_argument("--out", type=Path, default=CORRECTIONS.path)
    parser.add_argument("--sheets", type=Path, default=SHEETS, help="the folder of the contact sheets")
    args = parser.parse_args()
    if not 0 <= params.held_out <= 1:
        raise StageError("params.yaml: corrections.held_out must be from 0 to 1.")
    arrays, problems = fetch(args.source, params.held_out)
    for problem in problems:
        print(f"not used: {problem}")
    with outputs(args.sheets.parent, args.sheets.name) as new:
        (new / args.sheets.name).mkdir()
        for number, sheet in enumerate(sheets(arrays), 1):
            sheet.save(new / args.sheets.name / f"{number}.png")
    write(arrays, args.out)
    held = int(arrays["held_out"].sum())
    print(f"{len(arrays['labels']) - held} corrections to train with and {held} held out in {args.out}")


if __name__ == "__main__":
    run(main)
