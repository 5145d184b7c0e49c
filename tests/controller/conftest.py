from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controller.fakes import Home, make_home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = make_home(tmp_path / "c")
    yield made
    made.store.close()
