import pytest

from gateway.units import binary_size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (64 << 20, "64 MiB"),
        (1536 << 20, "1.5 GiB"),
        ((1 << 20) - 1, "1 MiB"),
        (921_600 << 20, "900 GiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_sizes_are_written_for_people(size_bytes: int, text: str) -> None:
    """The unit fits the number, and no number is written with an exponent."""
    assert binary_size(size_bytes) == text
