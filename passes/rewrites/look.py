"""A look at a graph: run once under autograd on stand-ins, it tells its `Aliases` (the definitions are
there).

Made from a `GraphModule` and example values for its placeholders, none of which is changed. Not handled:
tensors without a storage.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch.fx.node import Argument

from fxgrad.passes.analyses.aliases import Aliases, NodeAliases, Place, Save
from fxgrad.torch_api import allowed_writes
from fxgrad.torch_api.calls import Args, Function, Kwargs, is_custom_function
from fxgrad.torch_api.engine import run_backward
from fxgrad.torch_api.internals import TorchDispatchMode, schema_of, storage_key, version_of
from fxgrad.torch_api.saved_hooks import saved_hooks
from fxgrad.torch_api.tensors import Geometry, refresh
from fxgrad.torch_api.tree import tensors_in
from fxgrad.world.private import gradients_set_aside, private_data
from fxgrad.world.reach import preserve
from fxgrad.world.standins import StandIns
from fxgrad.world.swap import Swap

_RESHAPED_MEMORY = ("set_", "resize_", "resize_as_")


def observe(
    graph_module: torch.fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    *,
    fake: object = None,
    allow: bool = False,
) -> Aliases:
    """Run the graph on stand-ins of its own tensors and of `inputs` (one per placeholder); nothing of the
    caller's is changed.

    `fake`: a FakeTensorMode to run on fake tensors, None for real ones. `allow`: carry out the writes that
    autograd refuses (`fxgrad.torch_api.allowed_writes`).

    Raises:
        Exception: whatever the graph itself raises.
    """
    with (
        preserve(graph_module, list(inputs), *_functions(graph_module)) as reach,
        reach.ctrl_c.waits(),
        torch.enable_grad(),
    ):
        tensors = list(reach.tensors.values())
        with private_data(tensors, None) if fake is None else _faked(tensors, fake) as made:
            observer = _Observer(graph_module, tensors, made, allow=allow)
            try:
                with reach.ctrl_c.comes(), observer.watch:
                    observer.run(*[made.get(id(t), t) for t in inputs], enable_io_processing=False)
                    observer.read_backward(retain_graph=any(t.grad_fn is not None for t in tensors))
                return observer.aliases()
            finally:
                observer.let_go()


@contextlib.contextmanager
def _faked(tensors: Sequence[torch.Tensor], fake: Any) -> Iterator[Mapping[int, torch.Tensor]]:
    """Fake tensors in place of the caller's."""
    standins = StandIns(fake)
    with gradients_set_aside([t for t in tensors if t.is_leaf]), fake:
        made = {id(t): standins.make(t) for t in tensors}
        with Swap(made):
            yield made


def _functions(graph_module: torch.fx.GraphModule) -> list[object]:
    """The program's own functions behind the `autograd.Function`s that the graph applies: what they reach may
    change as well."""
    classes = [
        getattr(n.target, "function", None) for n in graph_module.graph.nodes if n.op == "call_function"
    ]
    found = [
        vars(base).get(name)
        for cls in classes
        if isinstance(cls, type)
        for base in cls.__mro__
        for name in _METHODS
    ]
    return [getattr(method, "__func__", method) for method in found if method is not None]


_METHODS = ("forward", "setup_context", "backward", "vjp")


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch.fx.Interpreter is untyped here
    """Notes which storages the operators of a node mutate, and whether they draw random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch.fx.Interpreter is untyped here
        self.clear()

    def clear(self) -> None:
        self.written: dict[int, bool] = {}  # storage key -> only metadata so far
        self.random = False

    def __torch_dispatch__(
        self, func: Any, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        kwargs = kwargs or {}
        metadata = torch.Tag.inplace_view in func.tags
        for i, argument in enumerate(schema_of(func).arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            for tensor in tensors_in(value):
                key = storage_key(tensor)
                if key is not None:
                    self.written[key] = self.written.get(key, True) and metadata
        self.random |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **kwargs)


@dataclass(slots=True, eq=False)
class _RawSave:
    node: str
    index: int
    storage: int
    tensor: torch.Tensor
    geometry: Geometry
    version: int
    arguments: tuple[str, ...]
    rewritten: bool = False  # by its own saver, after the saving
    used: bool = False


class _Observer(allowed_writes.Interpreter):
    """Runs the graph and takes notes; `tensors` are those from before, `made` maps the ids of some to their
    stand-ins."""

    def __init__(
        self,
        graph_module: torch.fx.GraphModule,
        tensors: Sequence[torch.Tensor],
        made: Mapping[int, torch.Tensor],
        *,
        allow: bool,
    ) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self.made = made
        self.allow = allow
        self.watch = _Watch()
        self.numbers: dict[int, int] = {}
        self.objects: dict[int, str] = {}
        self.nodes: dict[str, NodeAliases] = {}
        self.saves: list[_RawSave] = []
        self.tangled: set[int] = set()
        self.placed: set[int] = set()  # storages of earlier results
        self.external = {n for t in tensors if (n := self.number(made.get(id(t), t))) >= 0}

    def number(self, tensor: torch.Tensor) -> int:
        """A small number per storage. Every tensor that gets one stays alive in `env`, `saves` or `made`, so
        keys are not reused."""
        key = storage_key(tensor)
        return -1 if key is None else self.numbers.setdefault(key, len(self.numbers))

    def fetch_attr(self, target: str) -> object:
        value = super().fetch_attr(target)
        return self.made.get(id(value), value) if isinstance(value, torch.Tensor) else value

    def run_node(self, n: torch.fx.Node) -> object:
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        given = {a.name: self.env[a] for a in n.all_input_nodes}
        if self.allow:
            for tensor in tensors_in(list(given.values())):
                refresh(tensor)
        needs_grad = tuple(
            name for name, value in given.items() if any(t.requires_grad for t in tensors_in(value))
        )
        first = len(self.saves)
        self.watch.clear()
        copied: tuple[str, ...] = ()
        with saved_hooks(self._packer(n, given), self._unpack):
            out = super().run_node(n)
        if self.allow and is_custom_function(n.target):
            out, copied = self._own_memory(out, given)
        for save in self.saves[first:]:
            save.rewritten = version_of(save.tensor) != save.version
        if n.op != "output":
            self.nodes[n.name] = self._note(n, out, given, grad, inference, copied, needs_grad)
        return out

    def call_function(self, target: Any, args: tuple[Argument, ...], kwargs: dict[str, Any]) -> object:
        return self._call(target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Argument, ...], kwargs: dict[str, Any]) -> object:
        return self._call(
            getattr(type(args[0]), target, None) or getattr(args[0], target),
            args,
            kwargs,
            bound=not hasattr(type(args[0]), target),
        )

    def _call(self, func: Function, args: Args, kwargs: Kwargs, *, bound: bool = False) -> object:
        args = args[1:] if bound else args
        # what a custom Function returns gets memory of its own in `run_node`, and a note
        if not self.allow or is_custom_function(func):
            return func(*args, **kwargs)
        return allowed_writes.call(func, args, kwargs)

    def _own_memory(self, out: object, given: Mapping[str, object]) -> tuple[object, tuple[str, ...]]:
        made = allowed_writes.own_memory(out, tuple(given.values()))
        if made is out:
            return out, ()
        shared = {storage_key(t) for t in tensors_in(out)}
        return made, tuple(
            name for name, value in given.items() if any(storage_key(t) in shared for t in tensors_in(value))
        )

    # ------------------------------------------------------------------ saves

    def _packer(self, n: torch.fx.Node, given: Mapping[str, object]) -> Callable[[torch.Tensor], object]:
        def pack(tensor: torch.Tensor) -> object:
            storage = self.number(tensor)
            arguments = tuple(
                a
                for a, v in given.items()
                if storage >= 0 and any(self.number(t) == storage for t in tensors_in(v))
            )
            geometry = Geometry.of(tensor) if storage >= 0 else Geometry((), (), 0)
            self.saves.append(
                _RawSave(n.name, len(self.nodes), storage, tensor, geometry, version_of(tensor), arguments)
            )
            return len(self.saves) - 1

        return pack

    def _unpack(self, index: int) -> torch.Tensor:
        self.saves[index].used = True
        return self.saves[index].tensor

    def read_backward(self, *, retain_graph: bool) -> None:
        """Which saves a backward from the outputs reads; all of them where none can be run. `retain_graph`:
        it may lead on into a graph from before, which is not ours to free."""
        outputs = [t for t in tensors_in(self.env_outputs()) if t.requires_grad]
        try:
            if outputs:
                run_backward(outputs, [torch.ones_like(t) for t in outputs], retain_graph=retain_graph)
        except Exception:  # whatever a hook of the program's raises, too
            for save in self.saves:
                save.used = True

    def env_outputs(self) -> object:
        """The values that the output node returns."""
        output = next(n for n in reversed(self.module.graph.nodes) if n.op == "output")  # type: ignore[arg-type,union-attr]
        return torch.fx.node.map_arg(output.args[0], lambda n: self.env[n])

    def let_go(self) -> None:
        """Forget the tensors: what backward did not read keeps its hooks, and they this, where no garbage
        collector sees it."""
        self.env.clear()
        self.saves.clear()

    # ------------------------------------------------------------------ notes

    def _note(
        self,
        n: torch.fx.Node,
        out: object,
        given: Mapping[str, object],
        grad: bool,
        inference: bool,
        copied: tuple[str, ...],
        needs_grad: tuple[str, ...],
    ) -> NodeAliases:
        results = list(tensors_in(out))
        single = isinstance(out, torch.Tensor)
        written = {
            self.numbers[key]: metadata for key, metadata in self.watch.written.items() if key in self.numbers
        }
        metadata = bool(written) and all(written.values())
        same_as = self.objects.get(id(out)) if single else None
        views = self._sources(n, results, given, same_as, metadata)
        note = NodeAliases(
            name=n.name,
            index=len(self.nodes),
            single=single,
            places=tuple(self._place(t) for t in results),
            same_as=None if metadata else same_as,
            views=views,
            copied=copied,
            grad=grad,
            inference=inference,
            writes=tuple(written),
            metadata=metadata,
            random=self.watch.random,
            needs_grad=needs_grad,
            several=self._several(n, single, views, same_as, copied, grad),
            number=out if isinstance(out, int | float) else None,
        )
        if single and (same_as is None or metadata):
            self.objects[id(out)] = n.name
        self.placed.update(place.storage for place in note.places)
        return note

    def _moved(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether a tensor object lies in another storage than when node `name` returned it (`set_`)."""
        return self.nodes[name].places[0].storage != self.number(tensor)

    def _sources(
        self,
        n: torch.fx.Node,
        results: Sequence[torch.Tensor],
        given: Mapping[str, object],
        same_as: str | None,
        metadata: bool,
    ) -> tuple[str, ...]:
        """The nodes that the results are views of; of a tensor that got another shape the one that it was."""
        if same_as is None:
            return self._views(n, results, given)
        if not metadata:
            return ()
        views = self._views(n, results, given)
        moved = self._moved(same_as, results[0])
        if n.target in _RESHAPED_MEMORY:
            self.tangled.update(place.storage for place in map(self._place, results))
        return tuple(v for v in views if v != same_as) if moved else (same_as,)

    def _views(
        self, n: torch.fx.Node, results: Sequence[torch.Tensor], given: Mapping[str, object]
    ) -> tuple[str, ...]:
        """The arguments that explain the memory of the results; memory that none explains is tangled."""
        if n.op in ("placeholder", "get_attr"):
            return ()
        storages = [storage for storage in map(self.number, results) if storage >= 0]
        found, explained = [], set()
        for name, value in given.items():
            shared = set(map(self.number, tensors_in(value))).intersection(storages)
            if shared:
                found.append(name)
                explained |= shared
        several = len(set(map(id, results))) > 1
        for storage in set(storages) - explained:
            if storage in self.placed or (several and storages.count(storage) > 1):
                self.tangled.add(storage)
        return tuple(found)

    def _several(
        self,
        n: torch.fx.Node,
        single: bool,
        views: tuple[str, ...],
        same_as: str | None,
        copied: tuple[str, ...],
        grad: bool,
    ) -> bool:
        parents = (*views, *([same_as] if same_as else []))
        made_several = grad and not single and bool(views) and n.target is not operator.getitem
        return made_several or bool(copied) or any(self.nodes[p].several for p in parents if p in self.nodes)

    def _place(self, tensor: torch.Tensor) -> Place:
        storage = self.number(tensor)
        geometry = Geometry.of(tensor) if storage >= 0 else Geometry(tuple(tensor.shape), (), 0)
        return Place(storage, geometry, tensor.dtype, tensor.device, tensor.requires_grad)

    def aliases(self) -> Aliases:
        """The record of the finished run."""
        writers: dict[int, list[NodeAliases]] = {}
        for note in self.nodes.values():
            for storage in note.writes:
                writers.setdefault(storage, []).append(note)
        saves = tuple(self._save(raw, writers.get(raw.storage, ())) for raw in self.saves)
        return Aliases(self.nodes, frozenset(self.external), frozenset(self.tangled), saves)

    def _save(self, raw: _RawSave, writers: Sequence[NodeAliases]) -> Save:
        counted = version_of(raw.tensor) != raw.version
        later = [w for w in writers if w.index > raw.index or (w.index == raw.index and raw.rewritten)]
        overwriter = later[0].name if later and (counted or any(not w.metadata for w in later)) else None
        return Save(raw.node, raw.storage, raw.geometry, raw.arguments, overwriter, counted, raw.used)
