"""The measurement of the store of wants measures both ways of keeping them."""

from pathlib import Path

from bench import wants


def test_measures_both(tmp_path: Path) -> None:
    """Every figure of both stores is there; on this disk or in memory, nothing takes no time at all."""
    for name, make in wants.STORES.items():
        directory = tmp_path / name
        directory.mkdir()
        figures = wants.measure(make, directory, 64)
        assert set(figures) >= {"offered_ms", "offered_kB", "changed_ms", "removed_ms", "start_ms", "disk_kB"}
        assert figures["offered_ms"] > 0 and figures["disk_kB"] > 0
