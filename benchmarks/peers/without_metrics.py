"""This service without its metrics. bench.py compares it with the whole service, to show what metrics cost."""

import digits.web.service


class Nothing:
    """Accepts any call and does nothing."""

    def __getattr__(self, name):
        return self

    def __getitem__(self, key):
        return self

    def __iter__(self):
        return iter((self, self))

    def __call__(self, *args, **kwargs):
        return self


digits.web.service.Metrics = lambda *args: Nothing()

from app import create_app  # noqa: E402

app = create_app()
