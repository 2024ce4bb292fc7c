"""Whether a number that left torch can be in what comes in from Python: from the text."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fxgrad.records import Site
from fxgrad.source.numbers_onward import may_reach
from fxgrad.source.parsing import load, nodes, site_of

# In each the number is what `item()` gives, and `tensor(...)` reads data of Python's.
STAYS = {
    "nobody reads it": "k = h.item()\nloss = tensor(lengths)",
    "printed": "k = h.item()\nprint(f'{k:.2f}', round(k, 3))\nloss = tensor(lengths)",
    "kept in a list that is printed": "ks = []\nks.append(h.item())\nloss = tensor(n)\nprint(sum(ks) / len(ks))",
    "kept in a dict of numbers": "ks = dict()\nks['k'] = h.item()\nloss = tensor(n)",
    "added up": "total = 0.0\ntotal += h.item()\nloss = tensor(n)\nprint(total)",
    "the best of them": "best = 9.0\nk = h.item()\nif k < best:\n    best = k\nloss = tensor(n)",
    "checked": "import math\nk = h.item()\nassert k > 0\nif math.isnan(k):\n    raise ValueError(k)\nloss = tensor(n)",
    "logged by a library": "import logging\nlogging.info('%s', h.item())\nloss = tensor(n)",
    "in a function of its own": ("def log():\n    k = h.item()\n    print(k)\ndef step():\n    log()\n    return tensor(n)\nstep()"),
    "returned, and dropped": ("def log():\n    return h.item()\ndef step():\n    k = log()\n    return tensor(n)\nstep()"),
    "a name of another function": ("def log():\n    n = h.item()\n    print(n)\ndef step(n):\n    log()\n    return tensor(n)\nstep(3)"),
    "returned around the whole": (
        "def log():\n    return h.item()\ndef step():\n    k = log()\n    loss = tensor(n)\n    return k\nprint(step())"
    ),
    "counted in a comprehension": "ks = [h.item() for h in hs]\nprint(max(ks))\nloss = tensor(n)",
}
GOES = {
    "at once": "loss = tensor(h.item())",
    "by a variable": "k = h.item()\nloss = tensor([k])",
    "by several": "k = h.item()\nw = [k, 1 - k]\nv = tuple(w)\nloss = tensor(v)",
    "by a list": "ks = []\nks.append(h.item())\nloss = tensor(ks)",
    "by a list of two names": "ks = row = []\nrow.append(h.item())\nloss = tensor(ks)",
    "by a list inside a list": "row = []\nrows = [row]\nrow.append(h.item())\nloss = tensor(rows)",
    "by a list that it was taken from": "row = rows[0]\nrow.append(h.item())\nloss = tensor(rows)",
    "by what a library writes": "import numpy as np\nnp.put(out, 0, h.item())\nloss = tensor(out)",
    "by a walrus": "print(k := h.item())\nloss = tensor(k)",
    "by a loop": "for k in h.item():\n    loss = tensor(k)",
    "by a comprehension": "w = [k + 1 for k in [h.item()]]\nloss = tensor(w)",
    "by a slice": "k = h.item()\nloss = tensor(n[:k])",
    "by a branch": "k = h.item()\nif k > 0:\n    n = 3\nloss = tensor(n)",
    "by a branch that ends the turn": "while True:\n    if h.item() > 0:\n        break\n    loss = tensor(n)",
    "by a function of the user's": "def note(k):\n    kept.append(k)\nnote(h.item())\nloss = tensor(kept)",
    "by a closure": "k = h.item()\ndef w():\n    return [k]\nloss = tensor(w())",
    "by a global": ("def log():\n    global k\n    k = h.item()\ndef step():\n    log()\n    return tensor([k])\nstep()"),
    "by an attribute": ("def log(self):\n    self.k = h.item()\ndef step(self):\n    log(self)\n    return tensor(self.k)\nstep(s)"),
    "by a list of the caller's": ("def log(ks):\n    ks.append(h.item())\ndef step():\n    log(ks)\n    return tensor(ks)\nstep()"),
    "returned": "def log():\n    return h.item()\ndef step():\n    k = log()\n    return tensor(k)\nstep()",
    "through a function of the user's named as Python's": ("def round(k):\n    n.append(k)\nround(h.item())\nloss = tensor(n)"),
    "by what looks at every variable": "k = h.item()\nloss = tensor(list(locals().values()))",
}


def _stack(file: Path, name: str) -> tuple[Site, ...]:
    """The call of that name, and the calls of the functions around it, innermost first."""
    source = load(str(file))
    calls = nodes(source, ast.Call)
    called = {ast.unparse(call.func).rpartition(".")[2]: site_of(source, call) for call in calls}
    found = [called[name]]
    while (function := found[-1].function.rpartition(".")[2]) in called:
        found.append(called[function])
    return tuple(found)


def _reaches(tmp_path: Path, text: str) -> bool:
    file = tmp_path / "program.py"
    file.write_text(text + "\n")
    return may_reach(_stack(file, "item"), _stack(file, "tensor"))


@pytest.mark.parametrize("name", STAYS)
def test_a_number_that_goes_nowhere_stays(name: str, tmp_path: Path) -> None:
    assert not _reaches(tmp_path, STAYS[name])


@pytest.mark.parametrize("name", GOES)
def test_a_number_that_may_come_back_is_followed(name: str, tmp_path: Path) -> None:
    assert _reaches(tmp_path, GOES[name])
