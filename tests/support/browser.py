"""Finds a browser, and installs Debian's where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

# Debian's packages for the browser and a font
PACKAGES = ("chromium", "fonts-dejavu-core")


def find_browser() -> str:
    """The path of the browser. Tests are skipped if there is none."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (path := shutil.which(name)):
            return path
    # CI runs as root on Debian, which has a package
    why = "not Debian, or not root"
    if shutil.which("apt-get") and os.geteuid() == 0:
        print("\ninstalling Debian's chromium, once: about a minute")
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(["apt-get", *words], check=False, capture_output=True, text=True)
            why = f"apt-get {words[0]}: {done.stderr.strip()[-300:]}"
        if path := shutil.which("chromium"):
            return path
    pytest.skip(f"needs a browser: install Debian's package chromium, or set CHROMIUM to one ({why})")
