"""The exceptions for pictures that can't be read. They say what is wrong, and not how a request is answered."""

from __future__ import annotations

from typing import Any, Literal

# more pixels, pages or parts than are decoded; another format; anything else, such as damage or no digit
Kind = Literal["large", "format", "content"]


class PictureError(ValueError):
    """A picture can't be read.

    Args:
        kind: what is wrong.
        name: what the caller calls the picture.
        problem: the rest of a sentence that begins with the name, such as "is damaged.".
        extra: details for programs: `found`, and for another format `formats`.
    """

    def __init__(self, kind: Kind, name: str, problem: str, **extra: Any) -> None:
        # all arguments but those by name, as pickles of exceptions need them
        super().__init__(kind, name, problem)
        self.kind: Kind = kind
        self.name, self.problem, self.extra = name, problem, extra

    def __str__(self) -> str:
        return f"{self.name} {self.problem}"


class CostlyPictures(Exception):
    """Preparing the pictures takes more time or memory than the caller wants to spend where it is."""
