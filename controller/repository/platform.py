"""What an image is built for, and which machines can run it."""

from __future__ import annotations

import platform as machine_facts
import re
from dataclasses import dataclass

from controller.errors import ImageError

# What uname calls a machine, and what images call it.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64/v8",
    "armv8l": "arm/v8",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "armv5tel": "arm/v5",
    "i686": "386",
    "i586": "386",
    "i486": "386",
    "i386": "386",
    "mipsel": "mipsle",
    "mips64el": "mips64le",
    "loongarch64": "loong64",
}
# The kernel calls both byte orders by one name, so that a node's report does not tell them apart.
_EITHER_BYTE_ORDER = {"mips": ("mips", "mipsle"), "mips64": ("mips64", "mips64le")}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is built for, as `os/architecture[/variant]`."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Raises ImageError unless the text has the form of `linux/arm64` or `linux/arm/v7`."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ImageError(f"platform {text!r}: linux/amd64, linux/arm64, linux/arm/v7 and the like are accepted")
        return cls(*parts)

    @classmethod
    def of_machine(cls, name: str) -> Platform:
        """The platform of a Linux machine by what `uname -m` says of it."""
        return cls.parse(f"linux/{_ARCHITECTURES.get(name, name)}")

    @classmethod
    def of_this_machine(cls) -> Platform:
        return cls.of_machine(machine_facts.machine())

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def fits(self, wanted: Platform) -> bool:
        """Whether an image for this runs where `wanted` is asked; a variant counts only where both have one."""
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and (not self.variant or not wanted.variant or self.variant == wanted.variant)

    def runs_on(self, machine: Platform) -> bool:
        """Whether a machine can run an image for this: its own architecture, in a variant that is not newer."""
        architectures = _EITHER_BYTE_ORDER.get(machine.architecture, (machine.architecture,))
        if self.os != machine.os or self.architecture not in architectures:
            return False
        mine, its = _generation(self.variant), _generation(machine.variant)
        return mine is None or its is None or mine <= its


def _generation(variant: str) -> int | None:
    return int(variant[1:]) if re.fullmatch(r"v[0-9]{1,3}", variant) else None


def misfit(image: str, machine: str) -> str:
    """Why a machine (`uname -m`) cannot run an image for a platform; empty when it can, or when either is unknown."""
    if not image or not machine:
        return ""
    try:
        runs = Platform.parse(image).runs_on(Platform.of_machine(machine))
    except ImageError:
        return ""
    return "" if runs else f"has architecture {machine}, the image is for {image}"
