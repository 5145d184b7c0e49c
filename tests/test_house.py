"""The rules that the tests themselves are under."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SKIPPING = """
import pytest

@pytest.mark.skip(reason="no reason")
def test_marked(): pass

def test_called(): pytest.skip("no reason")

@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", "1 failed, 1 xfailed, 2 errors in"), ("", "3 skipped, 1 xfailed in")]
)
def test_a_skip_is_a_failure_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    """With CI=true a test that is skipped by mark, call or module fails; without, it is skipped."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_one.py").write_text(SKIPPING)
    (tmp_path / "test_two.py").write_text("import pytest\npytest.skip('no reason', allow_module_level=True)\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors", str(tmp_path)],
        cwd=tmp_path,
        env={"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in run.stdout
    assert (run.returncode != 0) == bool(ci)
    assert ("skipped with CI=true: " in run.stdout) == bool(ci)


def test_every_dependency_is_pinned() -> None:
    """Each library that setup.py names has its version in constraints.txt, as high as setup.py asks for."""
    pinned = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    versions = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    needed = metadata.requires("picasso-gateway") or []
    assert len(needed) > 10
    for requirement in needed:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:>=([0-9.]+))?", requirement)
        assert match is not None
        version = versions[re.sub(r"[-_.]+", "-", match[1]).lower()]
        assert [int(part) for part in version.split(".")] >= [int(part) for part in (match[2] or "0").split(".")]
