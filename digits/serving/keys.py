"""API keys: `python -m digits.serving.keys` makes one. The service knows only their SHA-256 hashes, from a
setting or a file; digits/server/master.py loads them, digits/serving/access.py asks whether a key is among
them.

A plain hash will do because keys are 256 random bits: nobody can try them all, however fast the hash. That is
why keys are made here and not thought up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from digits.serving.settings import SettingError, Settings

HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")


def parse(text: str) -> frozenset[bytes]:
    """The hashes in `text`, parted by commas, spaces or lines; what follows a # is a comment.

    Raises ValueError, which leaves out what it found: it may be a key, put there by mistake.
    """
    found = set()
    for line in text.splitlines():
        for word in line.partition("#")[0].replace(",", " ").split():
            match = HASH.fullmatch(word)
            if not match:
                raise ValueError(
                    "hashes like sha256:<64 hex digits> are wanted, as `python -m digits.serving.keys` makes"
                )
            found.add(bytes.fromhex(match[1]))
    return frozenset(found)


def load(settings: Settings) -> frozenset[bytes]:
    """The hashes of all keys that are accepted, 32 bytes each; none if neither setting is given.

    Raises SettingError, also if a setting is given but names no key: that must not mean that all may call.
    """
    found: frozenset[bytes] = frozenset()
    if settings.api_keys:
        found |= _some(settings.api_keys, "DIGITS_API_KEYS")
    if settings.api_keys_file:
        try:
            text = Path(settings.api_keys_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"DIGITS_API_KEYS_FILE can't be read: {error}") from None
        found |= _some(text, f"DIGITS_API_KEYS_FILE={settings.api_keys_file}")
    return found


def _some(text: str, where: str) -> frozenset[bytes]:
    try:
        found = parse(text)
    except ValueError as error:
        raise SettingError(f"{where}: {error}") from None
    if not found:
        raise SettingError(f"{where}: there is no key in it")
    return found


def accepted(key: str, hashes: Iterable[bytes]) -> bool:
    """Whether `key`, as WSGI gives headers, is one of those with these hashes; takes the same time for any key."""
    digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()
    found = False
    for each in hashes:
        found |= hmac.compare_digest(each, digest)
    return found


def main() -> None:
    """Print a new key and its hash."""
    # one in 64 would begin with a dash, which command lines take for an option
    while (key := secrets.token_urlsafe(32)).startswith("-"):
        pass
    print(f"key, for the client:    {key}")
    print(f"hash, for the service:  sha256:{hashlib.sha256(key.encode()).hexdigest()}")


if __name__ == "__main__":
    main()
