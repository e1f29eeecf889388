"""API keys. `python -m digits.web.keys` creates one. The service only knows their SHA-256 hashes, from a
setting or a file.

A plain hash is secure because keys are 256 random bits, which nobody can guess however fast the hash is. A key
must therefore be created here, and not be chosen by a person."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from digits.web.settings import SettingError, Settings

# a SHA-256 hash as it is configured
HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")


def parse(text: str, where: str) -> frozenset[bytes]:
    """Parse hashes separated by commas, spaces or newlines; # begins a comment. where: what has the text.

    Raises SettingError if there is no hash, or anything else. Its message does not quote the text, which may be a
    key, put there by mistake.
    """
    hashes = set()
    for line in text.splitlines():
        for word in line.partition("#")[0].replace(",", " ").split():
            match = HASH.fullmatch(word)
            if not match:
                form = "sha256:<64 hex digits>, as printed by `python -m digits.web.keys`"
                raise SettingError(f"{where}: must be hashes like {form}")
            hashes.add(bytes.fromhex(match[1]))
    if not hashes:
        raise SettingError(f"{where} contains no hash")
    return frozenset(hashes)


def load(settings: Settings) -> frozenset[bytes]:
    """The hashes of all accepted keys, 32 bytes each; empty if neither setting is set.

    Raises SettingError, also if a setting is set but contains no hash, because that must not make the service
    public.
    """
    hashes: frozenset[bytes] = frozenset()
    if settings.api_keys:
        hashes |= parse(settings.api_keys, "DIGITS_API_KEYS")
    if settings.api_keys_file:
        try:
            text = Path(settings.api_keys_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"DIGITS_API_KEYS_FILE can't be read: {error}") from None
        hashes |= parse(text, f"DIGITS_API_KEYS_FILE={settings.api_keys_file}")
    return hashes


def accepted(key: str, hashes: Iterable[bytes]) -> bool:
    """Whether `key` has one of these hashes, compared in constant time. key: as WSGI decodes headers."""
    digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()
    return sum(hmac.compare_digest(each, digest) for each in hashes) > 0


def main() -> None:
    """Print a new key and its hash."""
    # command lines would take a key that begins with a dash for an option
    while (key := secrets.token_urlsafe(32)).startswith("-"):
        pass
    print(f"key, for the client:    {key}")
    print(f"hash, for the service:  sha256:{hashlib.sha256(key.encode()).hexdigest()}")


if __name__ == "__main__":
    main()
