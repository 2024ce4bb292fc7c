"""The records every part of fxgrad speaks in: sites, the trace, the facts, findings and the options.

Everything here is a frozen dataclass with tuples inside; graph nodes are named by their `torch.fx` node *name*, tensors by a small
integer (`Value.id`), autograd nodes by another. Nothing here imports anything of fxgrad, runs torch code or prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.fx

Severity = Literal["error", "warning", "note"]
Verdict = Literal["flows", "zero", "none", "branch", "blocked"]
Safety = Literal["safe", "unsafe", "shown"]
Phase = Literal["forward", "loss", "backward"]


@dataclass(frozen=True, slots=True)
class Site:
    """A span of user source. Lines and columns count from 1, columns in characters; `end_column` is the column after the last character.

    `column`, `end_line` and `end_column` are 0 where the interpreter does not know them.
    """

    file: str
    line: int
    column: int = 0
    end_line: int = 0
    end_column: int = 0
    function: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to analyse. `values`: which tensors the model runs on (`auto` picks); `max_paths`: branch outcomes explored at most."""

    values: Literal["auto", "fake", "real"] = "auto"
    max_paths: int = 64
    rewrite: Literal["needed", "all"] = "needed"
    unsafe: bool = False


@dataclass(frozen=True, slots=True)
class Inputs:
    """Positional and keyword inputs together, where a tuple or a dict alone does not say it."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edit:
    """A text edit of one file: replace the span of `site` (exactly `old`) by `new`."""

    site: Site
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Fix:
    """What repairs a finding. `advice` is one imperative sentence; `edits` is empty where the fix is only shown."""

    advice: str
    safety: Safety = "shown"
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One station of a path from the loss to a parameter: `label` names it (`loss`, `detach`, `encoder.weight`)."""

    label: str
    site: Site | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. `parameters` are the qualified names it starves; `path` runs from the loss to the parameter, the cut marked in it."""

    code: str
    name: str
    severity: Severity
    message: str
    site: Site | None = None
    parameters: tuple[str, ...] = ()
    path: tuple[Step, ...] = ()
    fix: Fix | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor at one moment: an in-place write makes a new Value of the same storage.

    `grad` numbers the autograd edge that carries its gradient (None: it requires none); `function` names the autograd node that made it.
    `delivered`: what backward handed to that edge, where it was watched ("" elsewhere).
    """

    id: int
    node: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str
    storage: int
    requires_grad: bool
    is_leaf: bool
    grad: int | None
    function: str = ""
    delivered: Literal["", "none", "zero", "some"] = ""


NodeKind = Literal["input", "attribute", "op", "module", "function", "checkpoint", "transform", "escape", "entry", "region", "leaf"]


@dataclass(frozen=True, slots=True)
class Flow:
    """Data went from value `source` to value `target` through a node; `open`: autograd recorded that step, a gradient can come back."""

    source: int
    target: int
    open: bool
    weak: bool = False  # assumed, not seen: the data left torch and something came back


@dataclass(frozen=True, slots=True)
class NodeFact:
    """What one recorded step did. `stack`: user frames, innermost first (`site` is stack[0]); `module`: path of the user module it ran in."""

    name: str
    kind: NodeKind
    target: str
    site: Site | None
    stack: tuple[Site, ...]
    module: str
    phase: Phase
    grad_enabled: bool
    inference: bool
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    flows: tuple[Flow, ...]
    writes: tuple[int, ...] = ()  # storages written in place
    constants: tuple[Any, ...] = ()  # the Python numbers among its arguments


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an `nn.Module`: `path` is its qualified name, `values` the tensors it returned."""

    path: str
    type: str
    site: Site | None
    stack: tuple[Site, ...]
    values: tuple[int, ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Raised:
    """An error of the user's program. `site`: the innermost user line; `node`: the graph node that ran, where one did."""

    phase: Phase
    type: str
    message: str
    site: Site | None
    stack: tuple[Site, ...] = ()
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A Python branch taken on the value of a tensor. `value` names the tensor; `known`: the example inputs decided it."""

    site: Site | None
    node: str
    outcome: bool
    known: bool


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """One parameter. `names`: every `named_parameters()` name it has; `values`: the Values that entered the graph for it (none: never read)."""

    name: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    requires_grad: bool
    module: str
    module_type: str
    module_called: bool
    values: tuple[int, ...]
    gradient: Literal["some", "zero", "none", "unknown"]  # what backward left in `.grad`


@dataclass(frozen=True, slots=True)
class External:
    """A tensor that the program used and no `parameters()` or `buffers()` lists: `path` is where it was found, as far as it was."""

    value: int
    path: str  # from the owner on: `hids[0][0].weight`
    is_parameter: bool
    requires_grad: bool
    is_leaf: bool
    floating: bool
    owner: str | None  # qualified name of the registered module it was reached from ("" is the model itself); None if from elsewhere
    attribute: str  # the owner's attribute that the path starts with
    constant: bool  # all its elements are equal, or it has no values to look at


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor saved for backward by `saver` and overwritten later by `overwriter` (node names)."""

    saver: str
    overwriter: str
    shape: tuple[int, ...]
    saved_version: int
    found_version: int
    counted: bool  # False: the version counter did not see the write (`.data`): backward runs, on the wrong value


@dataclass(frozen=True, slots=True)
class Facts:
    """What autograd did with one run of the program. `loss` is the loss's Value id (None: no tensor came back)."""

    values: tuple[Value, ...]
    nodes: tuple[NodeFact, ...]
    calls: tuple[Call, ...]
    parameters: tuple[ParameterFact, ...]
    externals: tuple[External, ...]
    decisions: tuple[Decision, ...]
    saved: tuple[Saved, ...]
    live: frozenset[int]  # Values whose gradient reaches back from the loss
    loss: int | None
    loss_requires_grad: bool
    error: Raised | None
    returns: Mapping[str, Site]  # per function frame key `file:function`, the return statement it left by
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # see passes/analyses/once.py


@dataclass(frozen=True, slots=True)
class Frozen:
    """A Python value that the trace baked into the graph: `what` was read off a tensor or the model at `site`."""

    what: str
    site: Site | None


@dataclass(frozen=True, slots=True)
class Branch:
    """One decision taken the other way: `starved` there and `starved_here` on the main path, by parameter name."""

    decision: Decision
    facts: Facts
    starved: frozenset[str]
    starved_here: frozenset[str]


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may look at beside the facts: the user's objects (read only), what should train, and where to search source."""

    model: Any
    loss: Callable[..., Any] | None
    optimizer: Any
    expected: frozenset[str]
    explicit: bool  # the user named what should train
    files: tuple[str, ...]  # source files of the model, the loss and the caller, for static look-ups
    verdicts: Mapping[str, Verdict]
    causes: Any = None  # fxgrad.passes.analyses.causes.Causes of these facts
    watched: Facts | None = None  # a second run with backward watched, where a gradient was lost on an open way
    hazards: Facts | None = None  # a second run with saved tensors watched, where something was overwritten
    branches: tuple[Branch, ...] = ()  # the other outcomes of data-dependent decisions
    held: Any = None  # fxgrad.passes.analyses.optimizers.Held of the optimizers given; None where none was
    copies: frozenset[str] = frozenset()  # starved parameters of networks that are kept as copies of others
