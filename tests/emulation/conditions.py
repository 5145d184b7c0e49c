"""What tests of an emulation need of the machine."""

from __future__ import annotations

import os
import shutil

import pytest

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ip", "tc", "nft")),
    reason="only root makes network namespaces, with the commands ip, tc and nft",
)
