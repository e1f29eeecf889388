"""Renders pages of PDF files with PDFium, which needs no other program. The time and memory that a page takes
can't be told in advance, so this should only run where both are limited."""

from __future__ import annotations

from typing import Any

from PIL import Image

from digits.imaging.errors import PictureError

# pixels per point of 1/72 inch: 200 dpi, as scanners use for text
SCALE = 200 / 72
# the longer side is rendered with a number of pixels in this range
MIN_SIDE, MAX_SIDE = 600, 3000


class PdfPage:
    """A page of a PDF that has not been rendered, with some of the attributes of an image of Pillow's.

    size: width and height in pixels.
    """

    format, mode, info = "PDF", "RGB", {}  # type: ignore[var-annotated]

    def __init__(self, data: bytes, name: str, number: int) -> None:
        """number: from 1. Raises PictureError for a damaged or encrypted file, or one without the page."""
        # takes 10 MB and a tenth of a second, for which other pictures shouldn't wait
        import pypdfium2

        try:
            self._document = pypdfium2.PdfDocument(data)
            self._document.init_forms()
            self.pages = len(self._document)
            self._page = self._document[number - 1]
            sides: Any = self._page.get_size()
        except (pypdfium2.PdfiumError, IndexError) as error:
            reason = "needs a password" if "password" in str(error).lower() else "is a damaged PDF"
            raise PictureError("content", name, f"{reason}.", found="PDF") from None
        longer = max(*sides, 1.0)
        self._scale = min(max(SCALE, MIN_SIDE / longer), MAX_SIDE / longer)
        self.width, self.height = (max(1, round(side * self._scale)) for side in sides)
        self.size = self.width, self.height

    def rendered(self) -> Image.Image:
        """The page as dark ink on white, with what is filled into forms. Closes the file."""
        try:
            return self._page.render(scale=self._scale, rev_byteorder=True).to_pil().convert("RGB")
        finally:
            self.close()

    def close(self) -> None:
        """Close the file."""
        self._document.close()
