"""Facts: what autograd did in one run, as frozen records, from the raw observations of the recorder.

What is an edge, an open flow and a live value: `fxgrad.trace.edges`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch.autograd.graph import Node

from fxgrad.records import Decision, External, Facts, Flow, NodeFact, ParameterFact, Saved, Value
from fxgrad.records.facts import Delivered
from fxgrad.source.sites import innermost
from fxgrad.torch_api.autograd_graph import leaf_of
from fxgrad.torch_api.calls import DERIVATIVE, creates_graph
from fxgrad.torch_api.engine import ENGINE
from fxgrad.torch_api.errors import element_without_history
from fxgrad.torch_api.internals import version_of
from fxgrad.torch_api.tensors import has_nonzero
from fxgrad.trace.edges import Edges, Key
from fxgrad.trace.observations import RawSave
from fxgrad.trace.recorder import RawValue, Step
from fxgrad.trace.run import Run
from fxgrad.trace.shared_facts import (
    attribute_of,
    calls_of,
    each_once,
    is_about_its_tensor,
    is_constant,
    node_fact,
    reached_from,
    registered,
)


def observe(run: Run) -> Facts:
    """The Facts of a finished run."""
    edges = _RunEdges(run.recorder.values)
    values = tuple(_value(raw, edges, run) for raw in run.recorder.values)
    nodes = _nodes(run, edges)
    loss = run.loss.value if run.loss is not None else _asked(run)
    return Facts(
        values=values,
        nodes=nodes,
        calls=tuple(calls_of(run.recorder.calls, run.recorder.paths)),
        parameters=tuple(_parameters(run)),
        externals=tuple(_externals(run)),
        decisions=tuple(
            Decision(innermost(d.spots), d.node, d.outcome, d.known) for d in run.recorder.decisions
        ),
        saved=tuple(_saved(run)),
        live=edges.live(loss) if loss is not None else frozenset(),
        loss=loss,
        loss_requires_grad=run.loss_requires_grad
        or (run.loss is None and loss is not None and values[loss].requires_grad),
        loss_type=run.loss_type,
        error=run.error,
        returns=dict(run.returns),
        midway=run.loss is None and loss is not None,
    )


def _asked(run: Run) -> int | None:
    """The tensor of which the program itself asked a derivative, where that raised for how it was computed:
    as good as a loss, for what is wrong on the way to it is to be told."""
    error, recorder = run.error, run.recorder
    step = next((step for step in reversed(recorder.steps) if step.node in recorder.raised), None)
    if error is None or step is None or step.node.name != error.node or not is_about_its_tensor(error):
        return None
    index = element_without_history(error.message) or 0
    asked = step.reads[index : index + 1] if step.target.rpartition(".")[2] in ENGINE else ()
    return next(iter(asked), None)


class _RunEdges(Edges):
    """Those of a run: the edge (definition 1) of each of its values, and autograd's graph behind them.

    Autograd's nodes and the leaves go by their objects, kept here: an id is good while its object lives. Of
    nobody's: a run is to go with its last reference.
    """

    def __init__(self, raws: Sequence[RawValue]) -> None:
        super().__init__()
        self._raws = raws
        self._entered = 0
        self._kept: dict[int, tuple[Node, int]] = {}
        self._leaves: dict[int, tuple[Key, torch.Tensor]] = {}
        self.keys = [self._key(raw) for raw in raws]
        self.numbers: dict[Key, int] = {}
        for key in self.keys:
            if key is not None:
                self.numbers.setdefault(key, len(self.numbers))

    def key_of(self, function: Node, number: int) -> Key:
        known = self._kept.get(id(function))
        if known is None:
            leaf = leaf_of(function)
            # gradients arrive at a leaf by its one output, 0
            known = function, id(function) if leaf is None else self._leaf(leaf)[0]
            self._kept[id(function)] = known
        return known[1], number

    def _leaf(self, tensor: torch.Tensor) -> Key:
        known = self._leaves.get(id(tensor))
        if known is None:
            known = self._leaves[id(tensor)] = (-1 - len(self._leaves), 0), tensor
        return known[0]

    def _key(self, raw: RawValue) -> Key | None:
        if not raw.requires_grad:
            return None
        if raw.fn is not None:
            return id(raw.fn), raw.nr
        return self._leaf(raw.leaf) if raw.leaf is not None else None

    def flows_of(self, step: Step) -> list[Flow]:
        """The flows of a step (definition 2); steps are asked for in the order in which they ran."""
        if not step.makes:
            return []
        for raw in self._raws[self._entered : max(step.makes) + 1]:
            key = self.keys[raw.id]
            if key is not None:
                self.values.setdefault(key, []).append(raw.id)
            self._entered = raw.id + 1
        makes = [(make, self._raws[make].fn) for make in step.makes]
        flows = self.flows(_ONE, self.keys, each_once(step.reads), makes)
        for weak in step.weak:
            flows += [Flow(weak, make, False, weak=True) for make in step.makes]
        return flows

    def live(self, loss: int) -> frozenset[int]:
        """The values whose edges lie behind a value's, and those of the same edge (definition 3)."""
        start = self.keys[loss]
        if start is None:
            return frozenset()
        function = self._raws[loss].fn
        reached = self.reachable([function]).keys if function is not None else set()
        reached.add(start)
        return frozenset(raw.id for raw in self._raws if self.keys[raw.id] in reached)


# all nodes belong to one call, as it were: a walk goes through what no value carries, whichever step made it
_ONE = 0


def _nodes(run: Run, edges: _RunEdges) -> tuple[NodeFact, ...]:
    nodes = []
    for step in run.recorder.steps:
        # of `torch.autograd.grad`, whether what it gives can be differentiated
        derives = step.target == DERIVATIVE
        nodes.append(
            node_fact(
                step,
                step.node.name,
                step.module,
                edges.flows_of(step),
                grad=creates_graph(step.node.args, step.node.kwargs) if derives else step.grad,
                phase=step.phase,
                operands=step.operands,
                settings=step.settings,
            )
        )
    return tuple(nodes)


def _value(raw: RawValue, edges: _RunEdges, run: Run) -> Value:
    key = edges.keys[raw.id]
    return Value(
        raw.id,
        raw.node,
        raw.shape,
        raw.dtype,
        raw.device,
        raw.storage,
        raw.requires_grad,
        raw.is_leaf,
        edges.numbers[key] if key is not None else None,
        raw.fn.name() if raw.fn is not None else "",
        _delivered(raw, run) if run.delivered else "",
    )


def _delivered(raw: RawValue, run: Run) -> Delivered:
    if raw.fn is not None:
        return run.delivered.get((id(raw.fn), raw.nr), "none")
    if raw.leaf is None:
        return ""
    grad = raw.leaf.grad
    if grad is None:
        return "none"
    if run.recorder.standins.fake is not None:
        return "some"
    return "some" if has_nonzero(grad) else "zero"


def _parameters(run: Run) -> Iterable[ParameterFact]:
    read = _attribute_values(run)
    for one in registered(run.program.root):
        yield ParameterFact(
            name=one.names[0],
            names=one.names,
            shape=tuple(one.parameter.shape),
            requires_grad=one.parameter.requires_grad,
            module=one.path,
            module_type=type(one.owners[0]).__name__,
            module_called=any(id(owner) in run.recorder.called for owner in one.owners),
            values=tuple(read.get(id(one.parameter), ())),
            gradient=run.gradients.get(one.names[0], "unknown"),  # type: ignore[arg-type]
        )


def _attribute_values(run: Run) -> dict[int, list[int]]:
    """Per original tensor, the values that stood for it as it entered the graph."""
    recorder = run.recorder
    by_name: dict[str, list[int]] = {}
    for step in recorder.steps:
        if step.kind in ("attribute", "input"):
            by_name.setdefault(step.target, []).extend(step.makes)
    found: dict[int, list[int]] = {}
    for key, name in recorder.names.items():
        if name in by_name:
            found[key] = by_name[name]
    return found


def _externals(run: Run) -> Iterable[External]:
    recorder = run.recorder
    for tensor, value in recorder.externals.values():
        owner, keys = reached_from(recorder.reach.parents, recorder.paths, tensor)
        yield External(
            value=value,
            path=".".join(keys),
            is_parameter=isinstance(tensor, torch.nn.Parameter),
            requires_grad=tensor.requires_grad,
            is_leaf=tensor.is_leaf,
            floating=tensor.is_floating_point(),
            owner=owner,
            attribute=attribute_of(keys) if owner is not None else "",
            constant=is_constant(tensor),
        )


def _saved(run: Run) -> Iterable[Saved]:
    """Tensors that backward will find overwritten: saved at one version, found at another."""
    if not run.saves:
        return
    recorder = run.recorder
    writers = _writers(run)
    for save in run.saves:
        saver, version, found = save.saver, save.version, version_of(save.tensor)
        counted = found != version and not save.kept
        if saver is None or not (counted or save.changed):
            continue
        storage = recorder.storage_number(save.tensor)
        later = [
            s
            for i, s in writers.get(storage, [])
            if i >= save.index or (i == save.index - 1 and s is not saver) or s.kind in _HANDED_OUT
        ]
        if later:
            names = saver.node.name, later[0].node.name
            yield Saved(*names, tuple(save.tensor.shape), version, found, counted, save.kept)
    yield from _replaced_data(run)


_HANDED_OUT = ("escape", "entry")  # NumPy got the memory here; when it wrote there, no step says


def _writers(run: Run) -> dict[int, list[tuple[int, Step]]]:
    """The steps that write each storage, in running order, with their number; `t.set_(other)` counts as a
    write of the old storage."""
    writers: dict[int, list[tuple[int, Step]]] = {}
    raws = run.recorder.values
    for index, step in enumerate(run.recorder.steps):
        old = (
            [raws[v].storage for v in step.reads[:1]]
            if step.writes and step.target != "Tensor.__set__"
            else []
        )
        unseen = _fused(run, step)
        for storage in dict.fromkeys((*step.writes, *old, *unseen)):
            writers.setdefault(storage, []).append((index, step))
    return writers


def _fused(run: Run, step: Step) -> Iterable[int]:
    """The storages of a fused optimizer's parameters: it writes them and bumps no version."""
    if "._fused_" not in step.target:
        return ()
    return [run.recorder.values[v].storage for v in step.reads if run.recorder.values[v].requires_grad]


def _replaced_data(run: Run) -> Iterable[Saved]:
    """`t.data = new` after a step saved `t` itself: backward finds the new data, at the old version.

    Saved as a view (`weight.t()`) or as the step's own result, the old data is kept and nothing is wrong.
    """
    raws = run.recorder.values
    for index, step in enumerate(run.recorder.steps):
        old = raws[step.reads[0]] if step.target == "Tensor.__set__" and step.reads else None
        if old is None or all(raws[v].storage == old.storage for v in step.makes):
            continue
        for save in run.saves:
            if (
                save.saver is not None
                and save.index <= index
                and old.id in save.saver.reads
                and _is_itself(run, save, old)
            ):
                yield Saved(
                    save.saver.node.name, step.node.name, old.shape, save.version, save.version, False
                )


def _is_itself(run: Run, save: RawSave, value: RawValue) -> bool:
    """Whether the very tensor was saved, and no view of it."""
    tensor = save.tensor
    if tuple(tensor.shape) != value.shape or run.recorder.storage_number(tensor) != value.storage:
        return False
    return tensor.is_contiguous() or tensor.dim() <= 1
