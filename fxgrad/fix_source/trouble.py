"""What is to be mended: one finding with all that a run knew about the write behind it.

Made in the fresh process that analyses a program, from its report and the run in which saved tensors are
watched, which an analysis that found such a write has made already; frozen, without tensors, so that it can
travel to the process that edits. Not handled: writes inside compiled extensions, which have no line of their
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fxgrad.diagnosis.analyze import Examined
from fxgrad.records import Facts, Finding, NodeFact, Site
from fxgrad.source.objects import origin
from fxgrad.torch_api import registry
from fxgrad.trace.lab import Shown

# Findings about a write: those that an edit of the writing line can mend.
WRITES = frozenset({"FXG201", "FXG202", "FXG203", "FXG204", "FXG205"})
EVERY = "all"  # stands where a code does, of a write that breaks nothing and is to go all the same
_KEPT = frozenset(
    {
        "Tensor.__setitem__",
        "Tensor.requires_grad_",
        "Tensor.detach_",
        "Tensor.retain_grad",
        "Tensor.zero_grad",
    }
)

Built = Callable[[object], tuple[Site, ...]]  # where a module was built, innermost frame first


@dataclass(frozen=True, slots=True)
class Trouble:
    """One finding. The other fields are empty where it is not about a write.

    `stack`: user frames of the write, innermost first. `operation`: what wrote (`Tensor.add_`, `torch.relu_`,
    `ReLU` for a module). `built`: user frames that built the writing module, innermost first. `saver`: what
    had saved the old value, `saved` whether that was what it read or what it made, `saves` how many such
    there are. `hidden`: the write goes through `.data`. `refused`: torch refused the write, forward stops
    there. `part`: the write's own line takes a part of a tensor, `x[i]`; where it does not, a subscript there
    is an item of a list or a dict. `narrow`: an operand is of another type than the tensor that is written,
    which decides the result's type only in place.
    """

    finding: Finding
    stack: tuple[Site, ...] = ()
    operation: str = ""
    built: tuple[Site, ...] = ()
    saver: Site | None = None
    saved: Literal["", "input", "result"] = ""
    saves: int = 1
    hidden: bool = False
    refused: bool = False
    part: bool = True
    narrow: bool = False

    @property
    def site(self) -> Site | None:
        """The writing expression; the finding's own place may be where a module was built."""
        return self.stack[0] if self.stack else self.finding.site

    @property
    def is_write(self) -> bool:
        """Whether writing differently can mend it."""
        return bool(self.operation)

    @property
    def of_module(self) -> bool:
        """Whether a module wrote that was built with `inplace=True`."""
        return self.is_write and "." not in self.operation


def troubles(findings: Iterable[Finding], examined: Examined, built: Built) -> tuple[Trouble, ...]:
    """A trouble for each of an analysis' findings, in their order."""
    findings = tuple(findings)
    if not any(map(_may_write, findings)):
        return tuple(Trouble(finding) for finding in findings)
    shown = examined.lab.shown(examined.saving)
    facts, owners = shown.facts, _owners(examined, shown)
    return tuple(_described(finding, facts, owners, built) for finding in findings)


def _owners(examined: Examined, shown: Shown) -> dict[str, object]:
    """The module that each call of one calls, by node name."""
    modules = dict(registry.named_modules(examined.lab.program.root))
    return {step: modules.get(path) for step, path in shown.layers.items()}


def every_write(found: Iterable[Trouble], examined: Examined, built: Built) -> tuple[Trouble, ...]:
    """The in-place operations of the user's forward that no trouble in `found` is about, one for each place.

    Item assignments are left out: Python has no out-of-place way to write them.
    """
    shown = examined.lab.shown(examined.main)
    facts, owners = shown.facts, _owners(examined, shown)
    made: dict[Site, Trouble] = {}
    known = {trouble.site for trouble in found}
    for node in facts.nodes:
        site, owner = node.site, owners.get(node.name)
        if (
            not node.writes
            or site is None
            or site in known
            or site in made
            or origin(site.file) != "user"
            or node.phase != "forward"
        ):
            continue
        if node.target in _KEPT or (owner is not None and not getattr(owner, "inplace", False)):
            continue
        finding = Finding(
            EVERY, "in-place-write", "warning", f"`{node.target}` writes in place", site, (), (), None
        )
        made[site] = Trouble(
            finding,
            stack=node.stack,
            operation=node.target,
            built=built(owner) if owner is not None else (),
            part=_takes_part(node, facts),
        )
    return tuple(made.values())


def _may_write(finding: Finding) -> bool:
    return finding.code in WRITES


def _described(finding: Finding, facts: Facts, owners: dict[str, object], built: Built) -> Trouble:
    if not _may_write(finding):
        return Trouble(finding)
    step = facts.node_named.get(finding.step)
    if step is None:
        return Trouble(finding)
    about = {
        node.name: node
        for node in facts.nodes
        if _is_about(step, finding.site, node, owners.get(node.name), built)
    }
    found = _refused(finding, facts) or _overwriting(finding, facts, about) or _writing(finding, about)
    if found is None:
        return Trouble(finding)
    writer, trouble = found
    owner = owners.get(writer.name)
    trouble = replace(
        trouble,
        stack=writer.stack,
        operation=writer.target,
        part=_takes_part(writer, facts),
        narrow=_is_narrow(writer, facts),
    )
    return replace(trouble, built=built(owner)) if owner is not None else trouble


def _takes_part(writer: NodeFact, facts: Facts) -> bool:
    site = writer.site
    lines = {(n.site.file, n.site.line) for n in facts.nodes if n.site is not None and "getitem" in n.target}
    return site is not None and (site.file, site.line) in lines


def _is_narrow(writer: NodeFact, facts: Facts) -> bool:
    read = [facts.values[value] for value in writer.reads]
    return len({value.dtype for value in read if value.shape and value.dtype.is_floating_point}) > 1


def _is_about(step: NodeFact, site: Site | None, node: NodeFact, owner: object, built: Built) -> bool:
    """Whether a finding about `step` is about this one as well: they stand in one line, or modules built in
    the finding's line made both."""
    if node is step or (node.site is not None and node.site == step.site):
        return True
    if owner is None or not node.writes or site is None:
        return False
    return any(
        made.file == site.file and site.line <= made.line <= max(site.line, site.end_line)
        for made in built(owner)
    )


def _refused(finding: Finding, facts: Facts) -> tuple[NodeFact, Trouble] | None:
    error = facts.error
    if error is None or error.node != finding.step:
        return None
    return facts.node_named[finding.step], Trouble(finding, refused=True)


def _overwriting(
    finding: Finding, facts: Facts, about: Mapping[str, NodeFact]
) -> tuple[NodeFact, Trouble] | None:
    """The write, and the first step that had saved what it overwrites."""
    found = []
    for saved in facts.saved:
        writer, saver = about.get(saved.overwriter), facts.node_named.get(saved.saver)
        if writer is not None and saver is not None:
            found.append((writer, saver, saved))
    if not found:
        return None
    writer, saver, saved = found[0]
    kind = _saved(saver, writer, facts)
    return writer, Trouble(finding, saver=saver.site, saved=kind, saves=len(found), hidden=not saved.counted)


def _saved(saver: NodeFact, writer: NodeFact, facts: Facts) -> Literal["input", "result"]:
    made = {facts.values[value].storage for value in saver.makes}
    return "result" if made.intersection(writer.writes) else "input"


def _writing(finding: Finding, about: Mapping[str, NodeFact]) -> tuple[NodeFact, Trouble] | None:
    for node in about.values():
        if node.writes:
            return node, Trouble(finding, hidden=finding.code == "FXG203")
    return None
