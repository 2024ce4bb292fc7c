"""Parameters that come into being during the run: a layer or an `nn.Parameter` built in forward instead of in
`__init__`.

One that takes the place of a registered parameter is a replacement
(`fxgrad.passes.analyses.stored_parameters`). Not handled: one made from data of the model or its inputs (a
copy is a cut; a perturbation of an input is rightly made there).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fxgrad.passes.analyses.stored_parameters import displaced, replaced
from fxgrad.records import Facts, NodeFact, Phase, Site
from fxgrad.source import line_text

_INSIDE = ("__init__", "reset_parameters", "<listcomp>", "<genexpr>", "<dictcomp>")


@dataclass(frozen=True, slots=True)
class Made:
    """`count` parameters made by the expression at `site`; `names`: the registered ones of the layer whose
    place that takes."""

    site: Site
    count: int
    phase: Phase
    names: tuple[str, ...] = ()


def made_in_forward(facts: Facts, *, directly: bool) -> Iterator[Made]:
    """One per line: `nn.Parameter(...)` itself (`directly`), or a layer whose construction makes them; only
    what a gradient reaches."""
    derived = _derived(facts)
    groups: dict[Site, list[NodeFact]] = {}
    for node in facts.nodes:
        if node.kind != "leaf" or node.target != "torch.nn.Parameter" or not node.stack:
            continue
        if (
            not any(v in facts.live for v in node.makes)
            or derived.intersection(node.reads)
            or replaced(facts, node) is not None
        ):
            continue
        site = next((s for s in node.stack if s.function.rpartition(".")[2] not in _INSIDE), node.stack[-1])
        if ("Parameter" in line_text(site.file, site.line)) is directly:
            groups.setdefault(site, []).append(node)
    for site, members in groups.items():
        names = displaced(facts, site, members[0].module)
        yield Made(site, len(names) or len(members), members[0].phase, names)  # a watch sees several forwards


def renewed(facts: Facts) -> frozenset[str]:
    """The registered parameters whose place new ones take in forward: that they are used by nothing is no
    cause of its own."""
    found = {name for made in made_in_forward(facts, directly=False) for name in made.names}
    for node in facts.nodes:
        if (
            node.kind == "leaf"
            and node.target == "torch.nn.Parameter"
            and any(v in facts.live for v in node.makes)
        ):
            found.update(replaced(facts, node) or ())
    return frozenset(found)


def _derived(facts: Facts) -> set[int]:
    """Every value with data of an input, a parameter or another tensor from before the run."""
    # a watch has seen parameters being made
    reached = {value for parameter in facts.parameters for value in parameter.values}
    for node in facts.nodes:
        if node.kind in ("input", "attribute", "entry") or reached.intersection(node.reads):
            reached.update(node.makes)
    return reached
