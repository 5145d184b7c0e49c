import pytest

from controller.repository.platform import misfit


@pytest.mark.parametrize(
    ("image", "machine"),
    [
        ("linux/amd64", "x86_64"),
        ("linux/arm64", "aarch64"),
        ("linux/arm64/v8", "aarch64"),
        ("linux/arm/v7", "armv7l"),
        ("linux/arm/v6", "armv7l"),
        ("linux/arm", "armv6l"),
        ("linux/386", "i686"),
        ("linux/mipsle", "mips"),
        ("linux/mips", "mips"),
        ("linux/mipsle", "mipsel"),
        ("linux/riscv64", "riscv64"),
        ("", "x86_64"),
        ("linux/amd64", ""),
    ],
)
def test_machine_runs_images_for_its_architecture(image: str, machine: str) -> None:
    """What uname and what images call an architecture are matched; what is unknown is not held against a node."""
    assert misfit(image, machine) == ""


@pytest.mark.parametrize(
    ("image", "machine"),
    [
        ("linux/arm64", "x86_64"),
        ("linux/amd64", "i686"),
        ("linux/386", "x86_64"),
        ("linux/arm/v7", "armv6l"),
        ("linux/arm/v7", "aarch64"),
        ("linux/mips", "mipsel"),
        ("windows/amd64", "x86_64"),
    ],
)
def test_machine_does_not_run_images_for_another(image: str, machine: str) -> None:
    """The reason names both."""
    assert misfit(image, machine) == f"has architecture {machine}, the image is for {image}"
