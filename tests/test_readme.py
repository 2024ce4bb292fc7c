"""The README and the pages of `fxgrad help` show what the program prints: every block is run again and compared."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from fxgrad.cli.explain import explained

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.findall(r"^torch==([\d.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


# Those with something to run.
DOCUMENTS = [
    document
    for document in (ROOT / "README.md", *sorted((ROOT / "fxgrad" / "cli" / "help").glob("*.md")))
    if "<!-- run: " in (text := document.read_text(encoding="utf-8")) or "<!-- table: " in text
]


def renewed(text: str) -> str:
    spec = importlib.util.spec_from_file_location("fxgrad_readme", ROOT / "bench" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    text_now: str = module.renewed(text)
    return text_now


@pytest.mark.skipif(torch.__version__.partition("+")[0] not in PINNED, reason="its errors are in the words of the pinned torch")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_every_block_of_a_document_is_what_its_command_prints(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert renewed(text) == text


def test_the_readme_is_one_screen_and_its_errors_are_known() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 12_000
    rows = re.findall(r"^\| `([A-Z][^`]*|[a-z][^`]* [^`]*)` \| `(.*)` \|$", text, re.MULTILINE)
    assert len(rows) >= 5
    for error, command in rows:
        assert "fxgrad run SCRIPT" in explained(error), error
        assert re.search(r"\bfxgrad (run|fix|report|explain) ", command)


def test_the_readmes_picture_is_there() -> None:
    for name in re.findall(r"!\[[^\]]+\]\((.+?)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / name).read_bytes().startswith(b"\x89PNG")


def test_the_readmes_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
