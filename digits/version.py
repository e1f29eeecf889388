"""The version of the project (https://semver.org), whose history is in CHANGELOG.md."""

VERSION = "0.9.0"
