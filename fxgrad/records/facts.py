"""The facts of one run: values, nodes, flows, calls, decisions, parameters, and what was saved for backward.

Everything here is frozen, with tuples inside: what there are many of are named tuples, which are made three
times as fast as frozen dataclasses, and the rest are these. Graph nodes are named by their `torch.fx` node
*name*, tensors by a small integer (`Value.id`), autograd nodes by another. Nothing here runs torch code or
prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fxgrad.records.findings import Site

if TYPE_CHECKING:
    import torch

Phase = Literal["forward", "loss", "backward"]


UNSEEN = "torch.unseen"  # the target of what made a tensor, where no noted call did
WRAPPER = "subclass"  # the target of what put a subclass around tensors, past autograd

Delivered = Literal["", "none", "zero", "some"]  # what gradient came; "" where nothing tells


class Value(NamedTuple):
    """One tensor at one moment: an in-place write makes a new Value of the same storage.

    `grad` numbers the autograd edge that carries its gradient (None: it requires none); `function` names the
    autograd node that made it. `delivered`: what backward handed to that edge, where it was watched (""
    elsewhere).
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
    delivered: Delivered = ""


NodeKind = Literal[
    "input",
    "attribute",
    "op",
    "module",
    "function",
    "checkpoint",
    "transform",
    "escape",
    "entry",
    "region",
    "leaf",
]


class Flow(NamedTuple):
    """Data went from value `source` to value `target` through a node; `open`: autograd recorded that step, a
    gradient can come back."""

    source: int
    target: int
    open: bool
    weak: bool = False  # assumed, not seen: the data left torch and something came back


class NodeFact(NamedTuple):
    """What one recorded step did. `stack`: user frames, innermost first (`site` is stack[0]); `module`: path
    of the user module it ran in.

    `grad_enabled`: whether autograd recorded it; of `torch.autograd.grad` that is its `create_graph`.
    """

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
    # of a transform of `torch.func`: what it took a derivative of, among what it reads and makes
    differentiated: tuple[int, ...] = ()
    # it ran without gradients inside the `sample()` of a distribution that has an `rsample()`
    sampled: bool = False
    constants: tuple[object, ...] = ()  # the Python numbers among its arguments
    # By position or keyword: the values of its tensor arguments, and its numbers and tuples of numbers (of a
    # module: what it was built with).
    operands: tuple[tuple[int | str, int], ...] = ()
    settings: tuple[tuple[int | str, Any], ...] = ()


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
    """An error of the user's program. `site`: the innermost user line; `node`: the graph node that ran, where
    one did."""

    phase: Phase
    type: str
    message: str
    site: Site | None
    stack: tuple[Site, ...] = ()
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A Python branch taken on the value of a tensor. `value` names the tensor; `known`: the example inputs
    decided it."""

    site: Site | None
    node: str
    outcome: bool
    known: bool


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """One parameter. `names`: every `named_parameters()` name it has; `values`: the Values that entered the
    graph for it (none: never read)."""

    name: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    requires_grad: bool
    module: str
    module_type: str
    module_called: bool
    values: tuple[int, ...]
    gradient: Literal["some", "zero", "none", "unknown"]  # what backward left in `.grad`
    # its gradient lies in parts on several processes, and this is what this one's part was
    sharded: bool = False
    expected: bool = True  # it is meant to train here: an optimizer holds it, where there are any


@dataclass(frozen=True, slots=True)
class External:
    """A tensor that the program used and no `parameters()` or `buffers()` lists: `path` is where it was
    found, as far as it was."""

    value: int
    path: str  # from the owner on: `hids[0][0].weight`
    is_parameter: bool
    requires_grad: bool
    is_leaf: bool
    floating: bool
    # qualified name of the registered module it was reached from ("" is the model itself); None if from
    # elsewhere
    owner: str | None
    attribute: str  # the owner's attribute that the path starts with
    constant: bool  # all its elements are equal, or it has no values to look at


Span = tuple[
    int, int, int, int
    # line and column where it begins, line and column where it ends; columns in bytes from 0, as `ast` has
    # them
]


@dataclass(frozen=True, slots=True)
class Ran:
    """What of one function's text ran: how often each span did. `module`: the path of the module whose method
    it is; None: of no such one.

    `whole`: every run of it was seen to its end; else the counts say nothing. `in_part`: rounds that repeat
    others were not counted.
    """

    file: str
    function: str
    module: str | None
    counts: Mapping[Span, int]
    whole: bool = True
    in_part: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor saved for backward by `saver` and overwritten later by `overwriter` (node names)."""

    saver: str
    overwriter: str
    shape: tuple[int, ...]
    saved_version: int
    found_version: int
    # False: the version counter did not see the write (`.data`): backward runs, on the wrong value
    counted: bool
    kept: str = ""  # the attribute of a custom Function's `ctx` that holds it: its version is never checked


@dataclass(frozen=True)
class Facts:
    """What autograd did with one run of the program. `loss` is the loss's Value id (None: no tensor came
    back).

    Without slots, so that what several rules ask of the same facts is made at the first question and kept as
    long as they are.
    """

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
    loss_type: str = ""  # of a loss that is no tensor, where one was returned
    # It ended where a derivative of `loss` was asked for on the way, for how that was computed: what is not
    # used there may be used later.
    midway: bool = False
    # see passes/analyses/index.py
    memo: dict[object, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def node_named(self) -> Mapping[str, NodeFact]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def maker_of(self) -> Mapping[int, NodeFact]:
        """The node that made each value."""
        return {value: node for node in self.nodes for value in node.makes}

    @cached_property
    def open_from(self) -> Mapping[int, list[tuple[NodeFact, Flow]]]:
        """The open flows by their source, each with its node."""
        found: dict[int, list[tuple[NodeFact, Flow]]] = {}
        for node in self.nodes:
            for flow in node.flows:
                if flow.open:
                    found.setdefault(flow.source, []).append((node, flow))
        return found


@dataclass(frozen=True, slots=True)
class Frozen:
    """A Python value that the trace baked into the graph: `what` was read off a tensor or the model at
    `site`."""

    what: str
    site: Site | None
