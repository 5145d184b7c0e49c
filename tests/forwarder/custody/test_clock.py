"""The table's time over restarts, reboots, and wall clocks that jump by years."""

from gateway.forwarder.custody.clock import OFF_MAX_S, Mark, boot_clock, resume

YEAR_S = 365 * 86400.0
LAST = Mark(1000.0, "boot1", 500.0, 1.8e9)


def test_begins_at_zero() -> None:
    """A new table has lived through nothing."""
    assert resume(None, "boot1", 77.0, 1.8e9) == 0.0


def test_a_restart_counts_to_the_second() -> None:
    """While the machine runs, its boot clock says how long the gateway was not there, whatever the wall clock says."""
    for unix in (0.0, 1.8e9 + 60, 1.8e9 + 30 * YEAR_S):
        assert resume(LAST, "boot1", 560.0, unix) == 1060.0


def test_a_reboot_counts_as_the_wall_clock_says_up_to_an_hour() -> None:
    """A short power cut is known; after a long one, or a jump, only an hour is believed."""
    assert resume(LAST, "boot2", 30.0, 1.8e9 + 90) == 1090.0
    assert resume(LAST, "boot2", 30.0, 1.8e9 + 30 * YEAR_S) == 1000.0 + OFF_MAX_S


def test_time_never_goes_back() -> None:
    """A router without a battery boots in 1970: its wants have waited as long as before."""
    assert resume(LAST, "boot2", 30.0, 40.0) == 1000.0
    assert resume(LAST, "boot1", 20.0, 40.0) == 1000.0  # a boot id that stayed the same in a container


def test_this_machine_has_the_clocks() -> None:
    """The kernel's boot id and boot clock are read."""
    first, second = boot_clock(), boot_clock()
    assert first[0] == second[0] != "" and 0 < first[1] <= second[1] and first[2] > 1.7e9
