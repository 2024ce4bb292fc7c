"""`Lab`: the runs that are wanted of one program, each asked for by an `Experiment` and recorded once.

What is kept of a run is what it showed, as facts; the run itself holds copies of the model's data, and goes
with whoever asked for it. Not kept apart from these: runs of another program, as one with its checkpoints
opened is (`beside`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch.fx

from fxgrad.program.program import Program
from fxgrad.records import Facts
from fxgrad.torch_api.graph_modules import take_apart
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.facts import observe
from fxgrad.trace.lines import Lines, lines_of
from fxgrad.trace.plain import Truth, truth
from fxgrad.trace.run import Run, run
from fxgrad.trace.sketch import NotSketched, can_be_sketched


@dataclass(frozen=True, slots=True)
class Shown:
    """What a run showed. `layers`: the paths of the modules that its steps call, by the step's name."""

    facts: Facts
    layers: Mapping[str, str]


class Lab:
    """`asked`: the experiments that were recorded, in order."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.asked: list[Experiment] = []
        self._shown: dict[Experiment, Shown] = {}
        self._lines: dict[Experiment, Lines] = {}
        self._truth: list[Truth | None] = []
        self._graphs: list[torch.fx.Graph] = []
        self._sketches = True  # as long as nothing has shown that none can be made

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Around runs between which nobody else changes anything: the world is walked for the first of them
        alone. The graphs of the runs are gone afterwards."""
        try:
            with self.program.world.open():
                yield
        finally:
            while self._graphs:
                take_apart(self._graphs.pop())

    def run(self, experiment: Experiment) -> Run:
        """Record it, for whoever needs more than what `shown` keeps.

        Raises:
            NeedsValue: on fake values, the program asked for a number.
            TraceError: a tensor has no stand-in.
        """
        made = self._made(experiment)
        self._sketches = self._sketches and can_be_sketched(made.recorder)
        return made

    def sketched(self, experiment: Experiment) -> Run | None:
        """The run without its graph, for what it leaves; None where only a recorded one shows that: on fake
        values, and where the program does what a sketch does not follow."""
        if not self._sketches or experiment.values != "real":
            return None
        try:
            return self._made(replace(experiment, sketched=True))
        except NotSketched:
            self._sketches = False
            return None

    def _made(self, experiment: Experiment) -> Run:
        self.asked.append(experiment)
        made = run(self.program, experiment)
        self._graphs.append(made.recorder.graph)
        return made

    def left(self, experiment: Experiment) -> Run:
        """The run, for what it leaves if it does not raise: sketched, or recorded. Raises as `run`."""
        made = self.sketched(experiment)
        return made if made is not None and made.error is None else self.run(experiment)

    def shown(self, experiment: Experiment) -> Shown:
        """What the experiment shows; recorded if it was not yet. Raises as `run`."""
        if experiment not in self._shown:
            self.seen(self.run(experiment))
        return self._shown[experiment]

    def seen(self, made: Run) -> Facts:
        """The facts of a run of this lab's, and they are kept."""
        assert made.experiment is not None
        known = self._shown.get(made.experiment)
        if known is None:
            layers = {
                node.name: str(node.target) for node in made.recorder.graph.nodes if node.op == "call_module"
            }
            known = self._shown[made.experiment] = Shown(observe(made), layers)
        return known.facts

    def lines(self, experiment: Experiment) -> Lines:
        """The lines of the user's code that the experiment runs, in order. Raises as `run`."""
        if experiment not in self._lines:
            self._lines[experiment] = lines_of(lambda: self.run(experiment))
        return self._lines[experiment]

    def truth(self) -> Truth | None:
        """What a plain step of the program does; None where none can be made."""
        if not self._truth:
            self._truth.append(truth(self.program))
        return self._truth[0]

    def beside(self, program: Program) -> Lab:
        """A lab for a variant of the program, in the same world."""
        made = Lab(program)
        made._graphs = self._graphs
        return made
