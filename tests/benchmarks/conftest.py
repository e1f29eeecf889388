"""Fixtures of the tests of benchmarks/."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numerals_strings import Digits

from digits.training.synthetic import draw


@pytest.fixture(scope="session")
def drawn_digits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Synthetic digits in place of MNIST's, for the pictures of benchmarks/."""
    file = tmp_path_factory.mktemp("mnist") / "mnist.npz"
    np.savez(file, **draw(0, 80, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_NPZ", str(file))
        return Digits()
