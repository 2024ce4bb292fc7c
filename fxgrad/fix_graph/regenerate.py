"""The recorded forward as a `torch.fx.GraphModule`: the model again, as a graph, over the user's own
parameters.

Takes the part of the run's graph up to the model's return, gives it the model's calling convention and its
output's type. One graph stands for one path through the program's branches and for the training mode it ran
in.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence

import torch
import torch.fx

from fxgrad.fix_graph.attributes import of_attributes, of_tensors
from fxgrad.fix_graph.convention import CallingConvention, graph_module, own_names
from fxgrad.fix_graph.guards import Guards
from fxgrad.fix_graph.taken import Taken
from fxgrad.program.program import Program
from fxgrad.records import Site
from fxgrad.records.errors import TraceError
from fxgrad.records.facts import WRAPPER
from fxgrad.source.sites import innermost, site_of
from fxgrad.torch_api.internals import is_functional
from fxgrad.torch_api.tensors import inner_tensors
from fxgrad.trace.observations import Assumed, Step
from fxgrad.trace.run import Run
from fxgrad.world.standins import is_fake

# Nodes that only read: dropped when nothing uses them.
_PURE_METHODS = frozenset(("size", "__dlpack__"))


def regenerate(run: Run, more: Sequence[Assumed] = ()) -> torch.fx.GraphModule:
    """The model of a finished run as a GraphModule, with guards of what the run took for granted and of
    `more`.

    Raises:
        TraceError: the run's forward raised, so there is no output to return.
    """
    if run.output_structure is None or run.input_structure is None or run.forward_last is None:
        reason = run.error.message if run.error is not None else "the forward did not finish"
        raise TraceError(f"no graph: {reason}", site=run.error.site if run.error else None)
    last = run.forward_last
    nodes = []
    for node in run.recorder.graph.nodes:
        if node not in run.recorder.raised:
            nodes.append(node)
        if node is last:
            break
    taken = Taken([*(one for one in run.recorder.assumed if not one.weak), *more], nodes)
    graph = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in nodes:
        copied[node] = graph.node_copy(node, copied.__getitem__)
        if taken.waiting:
            taken.after(node, graph, copied)
    graph.output(torch.fx.node.map_arg([*run.output_nodes, *run.rebound.values()], copied.__getitem__))
    _drop_unused(graph)
    _refuse_names(run, graph)
    _refuse_fake(run, graph)
    _refuse_composed(run, copied)
    convention = CallingConvention(
        run.program.signature,
        run.input_structure,
        run.output_structure,
        run.input_order,
        run.input_repeats,
        tuple(run.rebound),
        first_line_of(run.program),
    )
    convention.guards = _guards(convention, run, taken, graph)
    model = run.program.model
    name = type(model).__name__ if isinstance(model, torch.nn.Module) else "GraphModule"
    return graph_module(run.program.root, graph, run.recorder.attributes, convention, name)


def _drop_unused(graph: torch.fx.Graph) -> None:
    """Reads without a reader. Never `eliminate_dead_code`: it takes in-place calls whose result is unused for
    dead."""
    for node in reversed(list(graph.nodes)):
        pure = node.op == "get_attr" or (node.op == "call_method" and node.target in _PURE_METHODS)
        if pure and not node.users:
            graph.erase_node(node)


def _refuse_names(run: Run, graph: torch.fx.Graph) -> None:
    """torch.fx writes `self.blocks.class(x)` into its code, and puts quotes around a name that is no
    identifier as it is; a graph module keeps some names for itself (`code`, `graph`, `meta`)."""
    root = run.program.root
    own = own_names() & {*root._modules, *root._parameters, *root._buffers}
    for node in (*graph.find_nodes(op="call_module"), *graph.find_nodes(op="get_attr")):
        parts = str(node.target).split(".")
        for part in parts:
            if keyword.iskeyword(part) or not part.isprintable() or '"' in part or "\\" in part:
                raise TraceError(
                    f"no graph: the code that torch.fx writes has no way to say {part!r} in `{node.target}`",
                    site=_first_site(run, node),
                    hint="give the module another name",
                )
        if parts[0] in own:
            raise _taken(parts[0], _first_site(run, node, *node.users))
    if own:  # held and not used: a state dict has it all the same
        raise _taken(min(own), first_line_of(run.program))


def _first_site(run: Run, *nodes: torch.fx.Node) -> Site | None:
    """The line of the first of these nodes of a graph for which the run has one."""
    spots = {step.node.name: step.spots for step in run.recorder.steps}
    return innermost(next(filter(None, (spots.get(node.name, ()) for node in nodes)), ()))


def _taken(name: str, site: Site | None) -> TraceError:
    return TraceError(
        f"no graph: `{name}` of the model is also a name that a torch.fx.GraphModule has for itself",
        site=site,
        hint="give it another name, or fix a module that holds the model: `nn.Sequential(model)`",
    )


def _refuse_fake(run: Run, graph: torch.fx.Graph) -> None:
    """A tensor made from Python data in a run on fake values has no data for the graph to keep."""
    for node in graph.find_nodes(op="get_attr"):
        value = run.recorder.attributes.get(str(node.target))
        if isinstance(value, torch.Tensor) and is_fake(value) and str(node.target).endswith("_"):
            raise TraceError(
                "no graph: the forward makes a tensor from Python data, which a run on fake values does not "
                "have",
                hint='record it on real values: values="real" (--values real)',
            )


def first_line_of(target: Program) -> Site | None:
    """Where the forward begins."""
    code = getattr(getattr(target.call, "forward", target.call), "__code__", None)
    return site_of((code, 0)) if code is not None else None


def _guards(convention: CallingConvention, run: Run, taken: Taken, graph: torch.fx.Graph) -> Guards:
    arguments = [guard for _, guard in convention.arguments.values() if guard is not None]
    attributes, tensors = of_attributes(run.recorder.reads.values()), of_tensors(run)
    guards = Guards([*arguments, *attributes.guards, *tensors.guards, *taken.guards()])
    held = enumerate((*attributes.places, *tensors.places), len(arguments))
    places = [(number, place) for number, inner in held for place in inner]
    guards.arm([node.name for node in graph.find_nodes(op="placeholder")], places)
    for holds in taken.held:
        holds.guards = guards
    return guards


def _refuse_composed(run: Run, copied: Mapping[torch.fx.Node, torch.fx.Node]) -> None:
    """A nested tensor or one of a subclass that came into being beside torch's function interface was put
    together from other tensors: as a constant it would be that of this run."""
    for step in run.recorder.steps:
        if step.node not in copied or not (step.kind == "entry" or step.target == WRAPPER):
            continue
        source = next(iter(step.node.all_input_nodes), None)
        held = source is not None and source.op == "get_attr"
        value = run.recorder.attributes.get(str(source.target)) if source is not None and held else None
        if isinstance(value, torch.Tensor) and _is_composed(run, step, value):
            name = "nested tensor" if value.is_nested else type(value).__name__
            if is_functional(value):
                name = "functional tensor"
            raise TraceError(
                f"no graph: the forward puts a {name} together where torch does not tell of it, and a graph "
                "would hold that of this run",
                site=innermost(step.spots),
                hint="compute with the tensors that it is made of, or make it by a function of torch's "
                "(`torch.nested.as_nested_tensor`)",
            )


def _is_composed(run: Run, step: Step, value: torch.Tensor) -> bool:
    if (value.is_nested and value.layout is torch.strided) or is_functional(value):
        return True
    slots = run.recorder.slots
    made = next((slot.tensor for slot in list(slots.values()) if slot.node is step.node), value)
    pending = [slots[id(part)].node for part in inner_tensors(made).values() if id(part) in slots]
    seen: set[torch.fx.Node] = set()
    while pending:
        node = pending.pop()
        if node.op == "placeholder" or (node.op == "get_attr" and not str(node.target).endswith("_")):
            return True
        pending += [n for n in node.all_input_nodes if n not in seen]
        seen.update(node.all_input_nodes)
    return False
