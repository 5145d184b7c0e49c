"""docs/protocol.md says what the code does."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_generated_parts_are_current() -> None:
    """The CDDL and the packets in docs/protocol.md are what the code builds; docs/generate.py writes them."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    text = (DOCS / "protocol.md").read_text()
    assert "NodeReport = {" in text
    assert generate.render(text) == text
