"""What is installed: the packages, the two commands and what they need."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "gateway/__init__.py").read_text(), re.MULTILINE)
README = ROOT / "README.md"

if VERSION is None:
    raise SystemExit('gateway/__init__.py has no line __version__ = "…"')

setup(
    name="picasso-gateway",
    version=VERSION[1],
    description="Service delivery for community networks: NDN forwarding, measured placement, containers at the edge",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["gateway", "gateway.*", "controller", "controller.*"]),
    package_data={"": ["py.typed", "*.html", "*.css", "*.js", "*.json"]},
    # The floors are what Debian 12 and OpenWrt 24.10 ship; python-ndn and cbor2 are brought along where they have none.
    install_requires=[
        "psutil>=5.9",
        "docker>=5",
        "python-ndn>=0.5.2",  # older ones make certificates that do not verify
        "pycryptodomex>=3.15",  # Ed25519
        "cbor2>=5.4",
        "pyroute2>=0.7.2",
    ],
    extras_require={
        "controller": [
            "numpy>=1.24",
            "scipy>=1.10",
            "matplotlib>=3.6",
            "netdiff>=1.0",  # what OLSR, batman-adv and BMX6 print
            "sqlalchemy>=2.0",
            "pydantic>=2.0",
            "pyyaml>=6.0",
            "rich>=13.0",
        ],
        "dev": [
            "pytest>=8.0",
            "pytest-timeout>=2.2",
            "hypothesis>=6.100",
            # Elsewhere it has no wheel, and the fuzz tests draw their inputs without its coverage.
            "atheris>=3.0; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.14'",
            "ruff>=0.9",
            "mypy>=1.14",
            "types-psutil",
            "types-PyYAML",
        ],
    },
    entry_points={
        "console_scripts": [
            "picasso-gateway=gateway.cli:main",
            "picasso-controller=controller.cli:main",
        ],
    },
)
