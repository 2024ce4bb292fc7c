"""What a rule may look at beside the facts: the user's objects, what should train, where to search source,
and further runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from fxgrad.passes.ended import Ended
from fxgrad.records.facts import Decision, Facts, Ran
from fxgrad.records.findings import Finding, Verdict
from fxgrad.records.training import Training


@dataclass(frozen=True, slots=True)
class Branch:
    """One decision taken the other way: `starved` there and `starved_here` on the main path, by parameter
    name; `reads`: the values of that path that it was computed from."""

    decision: Decision
    facts: Facts
    starved: frozenset[str]
    starved_here: frozenset[str]
    reads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may look at beside the facts: the user's objects (read only), what should train, and where
    to search source."""

    model: nn.Module
    loss: Callable[..., object] | None
    optimizer: Any
    expected: frozenset[str]
    explicit: bool  # the user named what should train
    files: tuple[str, ...]  # source files of the model, the loss and the caller, for static look-ups
    verdicts: Mapping[str, Verdict]
    causes: Any = None  # fxgrad.passes.analyses.causes.Causes of these facts
    # a second run with backward watched, where a gradient was lost on an open way
    watched: Facts | None = None
    hazards: Facts | None = None  # a second run with saved tensors watched, where something was overwritten
    # parameters whose gradient stays zero, whatever steps do to the others
    settled: frozenset[str] = frozenset()
    pending: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # zero for now: by parameter those that start at zero and will move
    # parameters whose gradient is zero because the sum of the outputs stands in for a loss
    summed: frozenset[str] = frozenset()
    branches: tuple[Branch, ...] = ()  # the other outcomes of data-dependent decisions
    held: Any = None  # fxgrad.passes.analyses.optimizers.Held of the optimizers given; None where none was
    ran: tuple[Ran, ...] = ()  # what of the user's functions ran, where a part of the model did not
    copies: frozenset[str] = frozenset()  # starved parameters of networks that are kept as copies of others
    waiting: frozenset[str] = frozenset()  # starved parameters whose optimizer has its turn in another step
    training: Training | None = None  # of a script that was watched: what it did around its calls
    # fxgrad.passes.analyses.second_walk.Meeting, where a backward met a graph that another had freed
    meeting: Any = None
    # fxgrad.passes.analyses.step_order.Early of it, where none met a freed graph: that says it all
    early: tuple[Any, ...] = ()
    ended: Ended | None = None  # of a script that was watched: by an error that is about gradients


class Rule(Protocol):
    """What a module in `fxgrad/passes/rules` is; its docstring is what `fxgrad explain` prints."""

    CODE: str
    NAME: str
    SEVERITY: str

    def check(self, facts: Facts, context: Context) -> Iterator[Finding]:
        """What the rule finds in these facts."""
