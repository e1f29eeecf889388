"""gunicorn's parser, spared what it has just done: most clients send one head again and again, in which at
most the length differs, and what gunicorn makes of a head depends on nothing else. digits/server/worker.py
gives each connection a `Parser`."""

from __future__ import annotations

import re
from typing import Any

from gunicorn.http import Request, RequestParser

# a Content-Length with nothing odd about it
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
# bytes; every connection keeps one, and there are thousands
LARGEST = 2048
# what gunicorn finds out of a head
FOUND = (
    "method",
    "uri",
    "path",
    "query",
    "fragment",
    "version",
    "headers",
    "scheme",
    "_expected_100_continue",
)


class Remembered(Request):
    """A request whose head is not parsed again where it is the connection's last but for the length."""

    def parse(self, unreader: Any) -> bytes:
        """Fill in what the head says; the bytes behind it. Raises gunicorn's ParseException as its own does."""
        received = unreader.take_buffered()
        head = received[: received.find(b"\r\n\r\n") + 4]
        stated = LENGTH.search(head)
        start, end = stated.span(1) if stated else (0, 0)
        # as two parts: a head without a length must not be like one whose length was taken out
        around = head[:start], head[end:]
        last = getattr(unreader, "last_head", None)
        if last is not None and around == last[0]:
            found = last[1]
            self.__dict__.update(found)
            if stated:
                length = head[start:end].decode()
                self.headers = [
                    (name, length if name == "CONTENT-LENGTH" else value) for name, value in found["headers"]
                ]
            return received[len(head) :]
        unreader.buf.write(received)
        rest = bytes(super().parse(unreader))
        if len(head) <= LARGEST and received == head + rest:
            unreader.last_head = around, {name: getattr(self, name) for name in FOUND}
        return rest


class Parser(RequestParser):
    """gunicorn's parser of HTTP/1.1, which makes `Remembered` requests."""

    mesg_class = Remembered
