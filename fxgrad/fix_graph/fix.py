"""`fix`: the model again as a graph, with the in-place writes that break its gradients rewritten out of
place, and proven equal.

Records the program on real tensors, regenerates it, rewrites it (`fxgrad.passes.rewrites`) and verifies the
result; a module that fails the verification is never returned. A graph stands for one path and one mode: a
program whose branches on data matter (`fxgrad.fix_graph.one_path`) is recorded as `torch.export` would run
it, where it has a way without them for that, and else refused here.
"""

from __future__ import annotations

import contextlib
import copy as copying
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
import torch.fx

from fxgrad.fix_graph import notebook
from fxgrad.fix_graph.convention import CallingCodeGen, GuardedModule, say_narrow
from fxgrad.fix_graph.kept_state import kept, refuse_kept_state
from fxgrad.fix_graph.one_path import Decided, decided, first_difference
from fxgrad.fix_graph.other_calls import shown
from fxgrad.fix_graph.proof import Verification, seeded, verify
from fxgrad.fix_graph.recording import (
    COPIED,
    EAGER,
    GRAPH_ONLY,
    HINT,
    OPEN,
    STEADY,
    VIEWS,
    first_line,
    recorded,
    recording,
    refuse_without_data,
    writes_nothing,
)
from fxgrad.fix_graph.regenerate import first_line_of, regenerate
from fxgrad.fix_graph.true_step import differences, seeds
from fxgrad.passes.rewrites.ops import sibling
from fxgrad.passes.rewrites.out_of_place import Rewriting, rewrite
from fxgrad.passes.rewrites.plans import Form
from fxgrad.program.lazy import shaped
from fxgrad.program.program import Program, program
from fxgrad.records import Edit, Frozen, Options, Site
from fxgrad.records.errors import FixError, GuardError, TraceError
from fxgrad.source.sites import innermost, site_of
from fxgrad.torch_api.errors import LEAF, says
from fxgrad.torch_api.graph_modules import set_graph
from fxgrad.torch_api.internals import COMPILER_FLAGS
from fxgrad.torch_api.module_internals import codegen_of
from fxgrad.trace.observations import Assumed, RawDecision
from fxgrad.trace.run import Run
from fxgrad.trace.self_check import refuse_unknown_torch
from fxgrad.trace.targets import Closure
from fxgrad.world.one_call import one_call
from fxgrad.world.reach import preserve


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A write (or a saving) that was rewritten: the graph node it was, its operator, the form it has now,
    where and why."""

    node: str
    operator: str
    form: Form
    site: Site | None
    reason: str


@dataclass(frozen=True, slots=True)
class NotRewritten:
    """A write that was to be rewritten and stays as it is; it breaks no gradient, or there would be no
    result."""

    node: str
    operator: str
    site: Site | None
    reason: str


class Source(Protocol):
    """What `FixResult.source_edits` and its kind ask; `fxgrad.fix_source.live` is it."""

    def edits(self) -> tuple[Edit, ...]:
        """Edits of the files as they lie on disk."""

    def diff(self, root: str | None = None) -> str:
        """The same as a unified diff."""

    def write(self) -> tuple[str, ...]:
        """Apply them; the names of the files."""


@dataclass(frozen=True, slots=True, eq=False)
class FixResult:
    """The outcome of `fix`.

    `module` is called exactly as the model and shares its parameters. `frozen`: what its guards check.
    `source`: the files behind the model; None where they are not known.
    """

    module: torch.fx.GraphModule
    applied: tuple[Rewritten, ...]
    refused: tuple[NotRewritten, ...]
    verification: Verification
    frozen: tuple[Frozen, ...] = ()
    source: Source | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """In one line: the module prints in as many as the model."""
        off = max(self.verification.gradients.values(), default=0.0)
        counts = (
            f"{len(self.applied)} rewritten, {len(self.refused)} left in place, guards: {len(self.frozen)}"
        )
        equal = (
            f"outputs within {self.verification.outputs:g}, gradients within {off:g} of "
            f"{self.verification.oracle}"
        )
        return f"FixResult({type(self.module).__name__}: {counts}; {equal})"

    def _repr_html_(self) -> str:
        return notebook.as_html(self)

    def _repr_markdown_(self) -> str:
        return notebook.as_markdown(self)

    @property
    def source_edits(self) -> tuple[Edit, ...]:
        """The same fixes as text edits to the user's files, the likeliest for each write; found when first
        read, and not tried: `fxgrad fix` tries each one in a fresh process.
        """
        return self.source.edits() if self.source is not None else ()

    def source_diff(self, root: str | None = None) -> str:
        """The source edits as a unified diff with file names relative to `root` (None: the working
        directory)."""
        return self.source.diff(root) if self.source is not None else ""

    def write_source(self) -> tuple[str, ...]:
        """Apply the source edits to the files, each replaced in one step, and return their names.

        Raises:
            FixError: a file changed since the edits were found, or is a notebook's cell.
        """
        return self.source.write() if self.source is not None else ()


@one_call()
def fix(
    model: object,
    inputs: object,
    *,
    loss: Callable[..., object] | None = None,
    options: Options | None = None,
    copy: bool = False,
    source: Source | None = None,
) -> FixResult:
    """The model as a verified GraphModule whose backward runs and gives the right gradients.

    Args:
        model, inputs, loss: as for `fxgrad.analyze`; the inputs must be real tensors. options:
        `rewrite="needed"` rewrites what breaks backward or falsifies a gradient, `"all"` every in-place
        write. copy: give the module parameters of its own instead of the model's. source: handed on to the
        result.

    Returns:
        The result. The model, its gradients, buffers and the random state are as before. A lazy model stays
        lazy: the module has the parameters of a copy that was called once.

    Raises:
        FixError: no such module can be given; the reason names the line that stands in the way.
        InputError: the inputs do not fit the model.
        TraceError: this torch is newer than those known, and its seams do not match.
    """
    refuse_unknown_torch()
    options = options or Options()
    model, _, _ = shaped(model, inputs, None)
    target = program(model, inputs, loss)
    refuse_without_data(target)
    with target.world.open():
        return _fixed(target, options, copy, source)


def _fixed(target: Program, options: Options, copy: bool, source: Source | None) -> FixResult:
    """From a run with open numbers; where what comes of it is not what the program does, from one with plain
    ones."""
    eager, allow, oracle = recorded(target, OPEN)
    made = _made(target, options, copy, source, _standing_for(target, eager, allow), eager, oracle)
    if isinstance(made, FixError) and _is_open(eager):
        eager, allow, oracle = recorded(target)
        made = _made(target, options, copy, source, _standing_for(target, eager, allow), eager, oracle)
    if isinstance(made, FixError):
        raise made
    return made


def _is_open(run: Run) -> bool:
    return run.experiment is not None and run.experiment.open_numbers


def _made(
    target: Program,
    options: Options,
    copy: bool,
    source: Source | None,
    standing: _Standing,
    eager: Run,
    oracle: str,
) -> FixResult | FixError:
    """The result, or in which way the graph is not equal to the program.

    Raises:
        FixError: there is no graph.
    """
    chosen, allow = standing.run, standing.allow
    try:
        graph_module = regenerate(chosen, standing.assumed)
    except TraceError as error:
        raise FixError(error.reason, site=error.site, hint=error.hint) from error
    sites = _note_sites(graph_module, chosen)
    nothing = not allow and oracle == EAGER and writes_nothing(chosen)
    failed: list[tuple[Rewriting, Verification]] = []
    for made, other in _ways(graph_module, target, options, allow, nothing=nothing):
        verification = _verification(made, target, eager, oracle)
        if verification.passed:
            break
        failed += [(made, verification)] if other is not _BESIDE else []
    else:
        return standing.refusal or _unverified(*failed[-1], chosen, sites)
    unequal = _other_than_eager(made, target, eager, oracle, standing)
    if unequal is not None:
        return unequal
    module = _own(made.graph_module) if copy else made.graph_module
    return FixResult(module, *_described(made, sites, other), verification, _frozen(module), source)


def _ways(
    graph_module: torch.fx.GraphModule, target: Program, options: Options, allow: bool, *, nothing: bool
) -> Iterator[tuple[Rewriting, str]]:
    """Graphs to prove until one is equal, each with the reason why writes are out of place in it: as recorded
    where `nothing` is written, with what the mode asks for out of place, with every write so."""
    other = _ASKED if options.rewrite == "all" else _REFUSED
    if nothing:
        yield Rewriting(graph_module, (), ()), other
    for careful in (False, True):
        yield _rewritten(graph_module, target, options, allow, careful=careful), other
    if options.rewrite != "all":
        yield _rewritten(graph_module, target, replace(options, rewrite="all"), allow), _BESIDE


def _note_sites(graph_module: torch.fx.GraphModule, run: Run) -> dict[str, Site]:
    """The lines of the steps by node, which are noted in the graph too."""
    sites = {step.node.name: site_of(step.spots[0]) for step in run.recorder.steps if step.spots}
    for node in graph_module.graph.nodes:
        if node.name in sites:
            node.meta["site"] = sites[node.name]
    return sites


def _own(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """A copy with tensors of its own. `GraphModule.__deepcopy__` takes along only what the graph uses, and
    forgets which buffers are saved."""
    made = sibling(module)
    memo: dict[int, object] = {}  # one for all: what was tied stays tied
    for name, value in vars(module).items():
        if (
            name in ("_parameters", "_buffers", "_modules")
            or isinstance(value, Closure)
            or (isinstance(value, torch.Tensor) and value.is_leaf)
        ):
            made.__dict__[name] = copying.deepcopy(value, memo)
    set_graph(made, copying.deepcopy(module.graph))
    return made


def _rewritten(
    graph_module: torch.fx.GraphModule,
    target: Program,
    options: Options,
    allow: bool,
    *,
    careful: bool = False,
) -> Rewriting:
    codegen = codegen_of(graph_module.graph)
    assert isinstance(codegen, CallingCodeGen)
    tensors = codegen.convention.inputs(target.inputs.args, dict(target.inputs.kwargs))
    try:
        with seeded():
            return rewrite(graph_module, tensors, mode=options.rewrite, allow=allow, careful=careful)
    except RuntimeError as error:
        if not allow and says(str(error), LEAF, *VIEWS):
            return _rewritten(graph_module, target, options, True, careful=careful)
        raise FixError(f"the recorded graph does not run: {first_line(str(error))}", hint=HINT) from error


def _verification(made: Rewriting, target: Program, eager: Run, oracle: str) -> Verification:
    try:
        return verify(
            made.graph_module,
            target,
            eager,
            reference=made.reference,
            oracle=oracle,
            gradients=not _falsified(made),
        )
    except TraceError as error:
        raise FixError(error.reason, site=error.site, hint=error.hint) from error


def _falsified(made: Rewriting) -> bool:
    """Whether eager's own gradients are no measure: a write that autograd does not know of falsifies them."""
    return bool(made.exposed) or any(not save.counted and save.overwriter is not None for save in made.found)


def _other_than_eager(
    made: Rewriting, target: Program, eager: Run, oracle: str, standing: _Standing
) -> FixError | None:
    """The recorded run was no true one if the module, equal to it, differs from a plain step. On other inputs
    a module may differ by what it holds fixed, where that is said."""
    gradients = not _falsified(made)
    narrow: list[GuardError] = []
    try:
        apart, is_later = differences(
            made.graph_module,
            target,
            eager,
            narrow,
            gradients=gradients,
            keep_saved=oracle == COPIED,
            others=standing.refusal is None,
        )
    except TraceError as error:
        raise FixError(error.reason, site=error.site, hint=error.hint) from error
    if not apart:
        say_narrow(made.graph_module, narrow)
        return None
    changed = next((read for read in eager.recorder.reads.values() if read.changed), None)
    if is_later and changed is not None and standing.refusal is None:
        return kept(changed)
    return standing.refusal or _no_record(apart, _frozen(made.graph_module), target, eager)


def _no_record(apart: Mapping[str, str], held: Iterable[Frozen], target: Program, eager: Run) -> FixError:
    """The recorded run was no true one: in which ways, and what may be behind it."""
    first = "; ".join(f"{what}: {how}" for what, how in list(apart.items())[:3])
    cause, site = "", None
    frozen = next((one for one in held if one.site is not None), None)
    if frozen is not None:
        cause, site = f"; it takes for granted: {frozen.what}", frozen.site
    if eager.drew:
        cause += "; it goes by random numbers of Python's or NumPy's"
        site = _line_of_a_draw(target, eager) or site
    return FixError(
        f"the recorded graph does not do what the program does: {first}{cause}",
        site=site if site is not None else first_line_of(target),
        hint=GRAPH_ONLY,
    )


def _line_of_a_draw(target: Program, eager: Run) -> Site | None:
    """The first line that other draws of Python's or NumPy's make another one."""
    taken = tuple(decision.outcome for decision in eager.recorder.decisions)
    for seed in seeds():
        other = recording(
            target, replace(STEADY, allow=eager.recorder.allow, forced=taken, backward=False, seed=seed)
        )
        node = first_difference(eager, other)
        step = next((step for step in eager.recorder.steps if step.node is node and step.spots), None)
        if step is not None:
            return site_of(step.spots[0])
    return None


def _unverified(
    made: Rewriting, verification: Verification, eager: Run, sites: Mapping[str, Site | None]
) -> FixError:
    """Why there is no module that equals the model."""
    for step in eager.recorder.steps:
        if step.target in _SHARED_WITH_NUMPY:
            return FixError(
                "no graph repeats the program: memory that NumPy shares is written behind torch's back",
                site=sites.get(step.node.name),
                hint="write the tensor with torch, or copy it before it leaves: `.numpy().copy()`",
            )
    needed = {s.overwriter for s in (*made.hazards, *made.found)}
    for refusal in sorted(made.refused, key=lambda r: r.node not in needed):
        reason = f"`{refusal.target}` cannot be rewritten: {refusal.reason}"
        return FixError(reason, site=sites.get(refusal.node), hint=_WRITE)
    reason = "no rewritten module equals the model: " + "; ".join(verification.differences[:3])
    site = _first_site(made, sites)
    if site is not None:
        return FixError(reason, site=site, hint=_WRITE)
    reason = "the recorded graph does not do what the program does: " + "; ".join(
        verification.differences[:3]
    )
    return FixError(reason, site=_bent(eager, sites), hint=GRAPH_ONLY)


_SHARED_WITH_NUMPY = ("Tensor.numpy", "Tensor.__array__", "torch.from_numpy")
_WRITE = "change the line itself: give the result a new name instead of writing in place"


def _bent(eager: Run, sites: Mapping[str, Site | None]) -> Site | None:
    """Where nothing was rewritten: the first line that a graph cannot repeat, as far as one is known, else
    where the forward begins."""
    for step in eager.recorder.steps:
        if step.target == "Tensor.__set__" or step.kind in ("escape", "entry"):
            return sites.get(step.node.name)
    return first_line_of(eager.program)


def _first_site(made: Rewriting, sites: Mapping[str, Site | None]) -> Site | None:
    nodes = [
        *(s.overwriter for s in (*made.hazards, *made.found) if s.overwriter),
        *(a.node for a in made.applied),
    ]
    return next((site for n in nodes if (site := sites.get(n)) is not None), None)


# ------------------------------------------------------------------------------------------- which run stands


@dataclass(frozen=True, slots=True, eq=False)
class _Standing:
    """The run whose graph stands for the program whatever the values; whether its writes had to be allowed;
    what it takes for granted beside what the recorder noted; and what to say where it turns out not to equal
    the program: None where it is the program's own run."""

    run: Run
    allow: bool
    assumed: tuple[Assumed, ...]
    refusal: FixError | None = None


def _standing_for(target: Program, eager: Run, allow: bool) -> _Standing:
    """The eager run; or, where a branch on data keeps its graph from standing for the program, one under
    `torch.compiler.is_exporting()`, if the program then does without the branch."""
    found = _decided(eager, target)
    if found.deciding is None:
        return _Standing(eager, allow, (*_checks(found.checks), *_shown(eager, target)))
    spots = found.deciding.spots
    site = innermost(spots)
    refusal = _refused_branch(site) if isinstance(found.deciding, RawDecision) else _refused_loop(site)
    try:
        with _exporting():
            exported, allow, _ = recorded(target)
            found = _decided(exported, target)
            more = _shown(exported, target) if found.deciding is None else ()
    except FixError:
        raise refusal from None
    if found.deciding is not None:
        raise refusal
    said = Assumed("", (), None, spots, _WITHOUT_BRANCH)
    return _Standing(exported, allow, (said, *_checks(found.checks), *more), refusal)


def _refused_branch(site: Site | None) -> FixError:
    reason = "the program takes a branch on the value of a tensor: a graph would hold only one of its paths"
    return FixError(reason, site=site, hint="change the line itself, or decide with torch.where")


def _refused_loop(site: Site | None) -> FixError:
    reason = (
        "the program goes round a loop as often as data selects here: a graph would hold only so many rounds"
    )
    return FixError(reason, site=site, hint="loop over everything, and mask out what is not selected")


def _decided(eager: Run, target: Program) -> Decided:
    asked = replace(STEADY, allow=eager.recorder.allow)
    return decided(
        eager, lambda outcomes, nudge: recording(target, replace(asked, forced=outcomes, nudge=nudge))
    )


def _shown(eager: Run, target: Program) -> tuple[Assumed, ...]:
    """What other calls show that the graph takes for granted.

    Raises:
        FixError: it goes by state that the program keeps for its next call.
    """
    taken = tuple(decision.outcome for decision in eager.recorder.decisions)
    asked = replace(STEADY, allow=eager.recorder.allow, forced=taken, backward=False)
    refuse_kept_state(target, eager, asked)
    return shown(target, eager, asked)


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """`torch.compiler.is_compiling()` and `is_exporting()` are true, as while `torch.export` runs a program:
    it takes the way that fits all values, where it has one. Other threads see it meanwhile, as they do of
    `torch.export`."""
    with preserve():  # notes the flags, among all others
        for flag in COMPILER_FLAGS:
            setattr(torch.compiler, flag, True)
        yield


# ------------------------------------------------------------------------------------------------ the account


_ASKED = "every write was asked for"
_REFUSED = "autograd does not allow it in place"
_BESIDE = "with some writes in place and some out of place the graph is not equal to the program"


def _described(
    made: Rewriting, sites: Mapping[str, Site | None], other: str
) -> tuple[tuple[Rewritten, ...], tuple[NotRewritten, ...]]:
    """What was rewritten and what not; `other`: why, where it overwrites nothing that was saved."""
    applied = tuple(
        Rewritten(a.node, a.target, a.form, sites.get(a.node), _why(a.node, made, sites) or other)
        for a in made.applied
    )
    return applied, tuple(NotRewritten(r.node, r.target, sites.get(r.node), r.reason) for r in made.refused)


def _why(node: str, made: Rewriting, sites: Mapping[str, Site | None]) -> str:
    for save in made.found:
        place = f" ({site})" if (site := sites.get(save.saver)) is not None else ""
        if save.overwriter == node:
            return f"it overwrites what `{save.saver}`{place} saved for backward"
        if save.saver == node:
            writer = (
                f" ({site})" if save.overwriter and (site := sites.get(save.overwriter)) is not None else ""
            )
            return f"`{save.overwriter}`{writer} overwrites what it saves for backward"
    return ""


_WITHOUT_BRANCH = (
    "a branch on data, which the program itself does without under "
    "`torch.compiler.is_exporting()`: recorded so"
)


def _checks(checks: Sequence[RawDecision]) -> tuple[Assumed, ...]:
    """Branches that only raise: the graph asks again, and raises as well."""
    return tuple(
        Assumed(*check.asked, check.outcome, check.spots, "a check that raises for other values")
        for check in checks
        if check.asked
    )


def _frozen(module: torch.fx.GraphModule) -> tuple[Frozen, ...]:
    assert isinstance(module, GuardedModule)
    return tuple(Frozen(guard.what, guard.site) for guard in module.guards)


__all__ = ["FixResult", "NotRewritten", "Rewritten", "fix"]
