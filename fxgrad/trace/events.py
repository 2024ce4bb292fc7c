"""What a TorchFunctionMode does not see, caught while a program is watched and put back after.

`nn.Module.__call__` (which module runs), `autograd.Function.apply`, functorch transforms,
`autograd.backward`, `nn.Parameter(...)`, `Variable(...)`, `torch.from_numpy`, the making of optimizers and
their steps, and `torch.compile`, whose code runs eagerly while it is watched. Every interception passes
straight through where the observer is not looking.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import itertools
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, GeneratorType
from typing import Any

import torch
from torch import nn
from torch.autograd.variable import VariableMeta
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from fxgrad.source.sites import Spot, user_spots
from fxgrad.torch_api import distributed, registry
from fxgrad.torch_api.calls import Args, Kwargs
from fxgrad.torch_api.complex_parts import complex_part
from fxgrad.torch_api.functions import Apply, replaced_apply
from fxgrad.torch_api.internals import (
    dynamo_is_loaded,
    next_sequence_number,
    transforms_active,
    unwrapped,
    version_of,
)
from fxgrad.torch_api.module_internals import TRANSFORMS, TRANSFORMS_WITH_FUNCTIONS
from fxgrad.torch_api.tensors import shape_of
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace import backwards
from fxgrad.trace.derivatives import Derivatives
from fxgrad.trace.leaf_modules import Whole, is_own, is_plain_layer
from fxgrad.trace.notes import Called, Kind, Note, Zeroed
from fxgrad.trace.observer import Observer
from fxgrad.trace.rounds import Turn
from fxgrad.trace.slots import Read
from fxgrad.world.shown_warnings import at_its_own_line

ZEROED = 64  # calls of `zero_grad` that are remembered


class Events:
    """Which modules ran and which optimizers there are. `before_step` and `after_step` are called around
    every optimizer step."""

    def __init__(
        self,
        observer: Observer,
        before_step: Callable[[Optimizer], None],
        after_step: Callable[[Optimizer], None],
    ) -> None:
        self.observer = observer
        self.calls: list[Called] = []
        self.called: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._returning: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # those of `calls`
        self.replicates = False  # it makes a DistributedDataParallel
        self.compiles = False  # the program calls torch.compile
        self.whole = False  # and will have no graph break: fullgraph=True
        self.compiled: tuple[Spot, ...] = ()  # where it first does
        # modules with parameters that were called from outside any module
        self.outermost: dict[int, nn.Module] = {}
        # autograd's count of nodes as each module was first called
        self.first_calls: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
        # what modules that FSDP2 splits return and it cannot look into: the type, and where they are called
        self.opaque: tuple[str, tuple[Spot, ...]] | None = None
        self.closures: set[CodeType] = set()  # what optimizer steps were given to call
        # the ids of those that were called where gradients are on, with how many backwards had run before
        self.with_grad: dict[int, int] = {}
        self.optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        # where they were built
        self.made: weakref.WeakKeyDictionary[Optimizer, tuple[Spot, ...]] = weakref.WeakKeyDictionary()
        self.on_outermost: Callable[[nn.Module], None] = lambda module: None
        # the first call of such a module has ended
        self.on_first_forward: Callable[[nn.Module], None] = lambda module: None
        # an optimizer steps inside a backward, in a hook of the program's
        self.on_step_within: Callable[[Optimizer], None] = lambda optimizer: None
        # called at every optimizer step after the watch has ended
        self.when_over: Callable[[], None] | None = None
        self._derivatives = Derivatives()
        self._before_step = before_step
        self._after_step = after_step
        self._turn = 0  # calls of modules from outside any module, so far
        self._made: dict[
            object, dict[int, list[Note]]
        ] = {}  # by the place that makes a Parameter in such a call: the first two turns, and what it made
        self._inside = False  # a module that is not looked into
        self._gathering = False  # whether FSDP2 is looked at
        self._thread = threading.get_ident()
        self._process = os.getpid()

    def looking(self) -> bool:
        """Whether calls are noted here: not within a note, another thread or a forked process, nor where only
        gradients are watched."""
        return not self.observer.gradients_only and self.attending()

    def attending(self) -> bool:
        """The same of backwards and steps."""
        observer = self.observer
        return (
            observer.active
            and not observer.quiet
            and threading.get_ident() == self._thread
            and os.getpid() == self._process
        )

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """The hooks on optimizer steps. Apart from the rest: they cannot be taken off inside a step, where
        the watch mostly ends."""
        before = register_optimizer_step_pre_hook(self._step_begins)
        after = register_optimizer_step_post_hook(
            lambda optimizer, args, kwargs: self._stepping(optimizer, self._after_step)
        )
        try:
            yield
        finally:
            before.remove()
            after.remove()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """All other interceptions on."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_patched(nn.Module, "__call__", self._module_call(stack)))
            stack.enter_context(_patched(nn.Module, "_apply", self._converted()))
            stack.enter_context(_patched(nn.Module, "register_forward_pre_hook", self._hooked(stack)))
            stack.enter_context(replaced_apply(self._apply))
            # From outside the mode's handler: a watch can only end where the mode is on its stack.
            stack.enter_context(_patched(torch.Tensor, "backward", self._backward(torch.Tensor.backward)))
            stack.enter_context(_patched(torch.autograd, "backward", self._backward(torch.autograd.backward)))
            made = self._seen_when_made(nn.Parameter.__new__, stack)
            stack.enter_context(_patched(nn.Parameter, "__new__", staticmethod(made)))
            made = self._seen_when_made(type.__call__, stack)
            stack.enter_context(_patched(VariableMeta, "__call__", made))
            stack.enter_context(_patched(torch, "from_numpy", self._from_numpy()))
            nested = self._region(torch.nested.nested_tensor, "op", "torch.nested.nested_tensor")
            stack.enter_context(_patched(torch.nested, "nested_tensor", nested))
            for name in ("real", "imag"):
                part = complex_part(name, threading.get_ident())
                stack.enter_context(_patched(torch.Tensor, name, part))
            stack.enter_context(_patched(torch, "compile", self._compile(stack)))
            stack.enter_context(_patched(warnings, "showwarning", at_its_own_line()))
            stack.enter_context(_patched(Optimizer, "__init__", self._optimizer_made()))
            stack.enter_context(_patched(Optimizer, "zero_grad", self._zeroed()))
            for module, name in (*TRANSFORMS, *TRANSFORMS_WITH_FUNCTIONS):
                holder = importlib.import_module(module)
                if hasattr(holder, name):
                    stack.enter_context(
                        _patched(holder, name, self._region(getattr(holder, name), "transform", name))
                    )
            for patch in self._derivatives.interceptions(self._derived):
                stack.enter_context(_patched(*patch))
            for patch in self.observer.ledger.births.interceptions(self.observer.spots_of_birth):
                stack.enter_context(_patched(*patch))
            if distributed.REPLICATED is not None:
                stack.enter_context(_patched(distributed.REPLICATED, "__init__", self._replica_made()))
            if dynamo_is_loaded():
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield

    # ------------------------------------------------------------------ modules

    def _module_call(self, patches: contextlib.ExitStack) -> Callable[..., object]:
        original = nn.Module.__call__
        observer, coverage = self.observer, self.observer.coverage
        stack, tensors = observer.ledger.stack, observer.ledger.tensors

        def __call__(module: nn.Module, *args: object, **kwargs: object) -> object:
            if self._inside:
                return original(module, *args, **kwargs)
            turn = self._turn_of(module) if self.looking() else None
            if turn is not None and observer.rounds.comparing:
                return self._called_again(original, module, args, kwargs)
            resting = coverage.rest()
            kind: Kind | None = None
            noted = self._is_noted(module)
            if noted:
                first = self._begins(module, patches)
                kind = None if first else self._kind(module, args, kwargs)
            whole = kind is not None and kind.whole is not None
            if resting and not (whole or (noted and is_plain_layer(module))):
                coverage.resume()
                resting = False
            try:
                if not noted:
                    return original(module, *args, **kwargs)
                if kind is not None and whole:
                    return self._whole(original, kind, module, args, kwargs)
                self._note_handed((*args, *kwargs.values()))
                stack.append(module)
                try:
                    out = original(module, *args, **kwargs)
                except BaseException as error:
                    if len(stack) == 1:
                        observer.on_raise(error)
                    raise
                finally:
                    stack.pop()
            finally:
                if resting:
                    coverage.resume()
            if not (tensors.is_light(out) and module in self._returning):
                resting = coverage.rest()
                self._returned(module, out, len(stack) + 1)
                if resting:
                    coverage.resume()
            if first:
                self.on_first_forward(module)
            if kind is not None and kind.left > 0 and observer.active:
                self._note_whole(kind, module, out)
            return out

        return __call__

    def _turn_of(self, module: nn.Module) -> Turn | None:
        """The turn of a call of a module that is about to run, see `fxgrad.trace.rounds`."""
        rounds = self.observer.rounds
        turn = self.observer.turn(id(module), (), {})
        if turn is None or turn.is_of(module):
            return turn
        rounds.wake()
        turn.subject = weakref.ref(module)
        return turn

    def _called_again(
        self, original: Callable[..., object], module: nn.Module, args: Args, kwargs: Kwargs
    ) -> object:
        """A call in a round that repeats others: what it calls is compared, and nothing is noted."""
        stack = self.observer.ledger.stack
        stack.append(module)
        try:
            return original(module, *args, **kwargs)
        except BaseException as error:
            if len(stack) == 1:
                self.observer.on_raise(error)
            raise
        finally:
            stack.pop()

    def _note_handed(self, items: Iterable[object]) -> None:
        """A module is called with these, whether it looks at them or not: no number among them is a loss."""
        ledger = self.observer.ledger
        for item in items:
            if type(item) is tuple or type(item) is list:
                self._note_handed(item)
                continue
            slot = ledger.tensors.by_id.get(id(item))
            value = ledger.values[slot.value] if slot is not None else None
            if value is not None and value.requires_grad and all(size == 1 for size in value.shape):
                self.observer.handed.add(value.id)

    def _is_noted(self, module: nn.Module) -> bool:
        observer = self.observer
        if observer.gradients_only and module not in self.called and self.attending():
            # its first call: what becomes of it is noted, to the end of this step
            observer.gradients_only = False
        if self.looking():
            return True
        if observer.quiet and observer.active:
            self.called.add(module)
        return False

    def _begins(self, module: nn.Module, patches: contextlib.ExitStack) -> bool:
        """A call begins; whether it is the first from outside any module, of a module with parameters."""
        if module not in self.first_calls:
            self.first_calls[module] = next_sequence_number()
            self.called.add(module)
        if self.observer.ledger.stack:
            return False
        if not self._gathering:
            self._look_for_gathering(patches)
        self._turn += 1
        if torch.is_grad_enabled():
            self.with_grad.setdefault(id(module), len(self.observer.backwards))
        if id(module) in self.outermost or next(registry.parameters(module), None) is None:
            return False
        self.outermost[id(module)] = module
        self.on_outermost(module)
        return True

    def _kind(self, module: nn.Module, args: Args, kwargs: Kwargs) -> Kind | None:
        """The kind of a call of one of torch's own modules without gradients; None for any other."""
        if torch.is_grad_enabled() or not is_own(module):
            return None
        kind = self.observer.kind(id(module), "", args, kwargs)
        if kind is None or kind.left > 0:
            return kind
        if kind.whole is None or not kind.whole.unchanged():
            self.observer.repeats.given = []
            return None
        return kind

    def _note_whole(self, kind: Kind, module: nn.Module, out: object) -> None:
        with self.observer.guarded():
            self.observer.repeats.noted(kind, None, out)
            if kind.left <= 0:
                kind.whole = Whole.of(module)

    def _whole(
        self, original: Callable[..., object], kind: Kind, module: nn.Module, args: Args, kwargs: Kwargs
    ) -> object:
        """A call that repeats others, of a module in which only torch's own code runs: it is not looked
        into."""
        observer = self.observer
        given, observer.repeats.given = observer.repeats.given, []
        observer.quiet += 1
        self._inside = True
        try:
            out = original(module, *args, **kwargs)
        finally:
            self._inside = False
            observer.quiet -= 1
        reads = observer.unlike(kind, given, out)
        if reads is not None:
            observer.after("op", type(module).__name__, reads, out)
        return out

    def _returned(self, module: nn.Module, out: object, depth: int) -> None:
        ledger = self.observer.ledger
        if ledger.full or not self.observer.active:
            return
        with self.observer.guarded():
            slots = [ledger.tensors.get(tensor) for tensor in tensors_in(out)]
            values = tuple(slot.value for slot in slots if slot is not None)
            if self._gathering and self.opaque is None and _is_opaque(module, out):
                self.opaque = type(out).__name__, user_spots(sys._getframe(1), ledger.boundary)
            if values:
                self.calls.append(
                    Called(module, user_spots(sys._getframe(1), ledger.boundary), values, depth)
                )
                self._returning.add(module)

    # ------------------------------------------------------------------ regions

    def _derived(self, original: Callable[..., object]) -> Callable[..., object]:
        """What `vjp` gave back is called, which takes a derivative outside of any region: of what, counts as
        read; not what it is taken by, nor the wrappers of the transform that has ended."""

        def given(outputs: object, inputs: object, *rest: object, **named: object) -> tuple[object, ...]:
            return tuple(map(unwrapped, tensors_in((outputs, rest, named))))

        return self._region(original, "transform", "vjp", given=given)

    def _region(
        self,
        original: Callable[..., object],
        kind: str,
        target: str,
        constants: tuple[object, ...] = (),
        given: Callable[..., tuple[object, ...]] | None = None,
    ) -> Callable[..., object]:
        """A call that is one note: what it is given, what it reads besides, what it returns. `given`: what of
        its arguments counts, where not all do."""

        @functools.wraps(original)
        def call(*args: object, **kwargs: object) -> object:
            observer = self.observer
            if not self.looking() or transforms_active():
                return original(*args, **kwargs)
            turn = observer.turn((target, constants), args, kwargs)
            if turn is not None and observer.rounds.comparing:
                return self._again(turn, original, kind, target, args, kwargs)
            reads = observer.before(*((args, kwargs) if given is None else given(*args, **kwargs)))
            hidden: dict[int, None] = {}
            observer.hidden.append(hidden)
            observer.quiet += 1
            try:
                with self._derivatives.of_region() as differentiated:
                    out = original(*args, **kwargs)
            finally:
                observer.quiet -= 1
                observer.hidden.pop()
            note = observer.after(kind, target, reads, (out, differentiated), tuple(hidden))
            if note is not None:
                note.constants = constants
                slots = map(observer.ledger.tensors.get, differentiated)
                note.differentiated = [slot.value for slot in slots if slot is not None]
            if turn is not None and observer.active:
                with observer.guarded():
                    observer.rounds.noted(turn, out)
                    turn.hidden = observer.leaves_in(hidden)
            return out

        return call

    def _again(
        self,
        turn: Turn,
        original: Callable[..., object],
        kind: str,
        target: str,
        args: Args,
        kwargs: Kwargs,
    ) -> object:
        """A call that is one note, in a round that repeats others. What it does is the user's own code, which
        may do something else in the next: read other leaves, write what it is given."""
        observer, rounds = self.observer, self.observer.rounds
        hidden: dict[int, None] = {}
        observer.hidden.append(hidden)
        observer.quiet += 1
        reads: list[Read] = []
        with observer.guarded():
            reads = [observer.ledger.read(tensor) for tensor in rounds.given() if tensor.requires_grad]
        try:
            out = original(*args, **kwargs)
        finally:
            observer.quiet -= 1
            observer.hidden.pop()
        with observer.guarded():
            writes = any(version_of(tensor) != slot.version for tensor, slot, _ in reads)
            others = writes is not turn.writes or observer.leaves_in(hidden) != turn.hidden
            if rounds.repeated(turn, out, others=others):
                return out
            observer.after(kind, target, reads, out, tuple(hidden))
            rounds.noted(turn, out)
            turn.hidden = observer.leaves_in(hidden)
        return out

    def _unnoted(self, original: Callable[..., object]) -> Callable[..., object]:
        """A call of which nothing is noted: that parameters are put together from parts is no use of them."""

        @functools.wraps(original)
        def call(*args: object, **kwargs: object) -> object:
            if not self.looking():
                return original(*args, **kwargs)
            self.observer.quiet += 1
            try:
                return original(*args, **kwargs)
            finally:
                self.observer.quiet -= 1

        return call

    def _converted(self) -> Callable[..., object]:
        """`module.to(...)`, `.double()`: the parameters stay themselves, and that they are copied is no use
        of them."""
        original = self._unnoted(nn.Module._apply)

        @functools.wraps(nn.Module._apply)
        def _apply(module: nn.Module, *args: object, **kwargs: object) -> object:
            out = original(module, *args, **kwargs)
            if self.looking():
                with self.observer.guarded():
                    self.observer.ledger.settle([*registry.parameters(module), *registry.buffers(module)])
            return out

        return _apply

    def _replica_made(self) -> Callable[..., object]:
        """A wrapper copies one process's parameters to all as it is made: neither a use of them nor a
        change."""
        original = self._unnoted(distributed.REPLICATED.__init__)

        @functools.wraps(distributed.REPLICATED.__init__)
        def __init__(replica: nn.Module, *args: object, **kwargs: object) -> None:
            original(replica, *args, **kwargs)
            if self.looking():
                self.replicates = True
                with self.observer.guarded():
                    self.observer.ledger.settle([*registry.parameters(replica), *registry.buffers(replica)])

        return __init__

    def _look_for_gathering(self, patches: contextlib.ExitStack) -> None:
        """FSDP2 is watched from where the program has imported it and builds parameters, calls a module or
        puts a hook on one."""
        classes = distributed.gathering()
        if classes is not None and not self._gathering:
            self._gathering = True
            self._watch_gathering(patches, *classes)

    def _hooked(self, patches: contextlib.ExitStack) -> Callable[..., object]:
        """FSDP2 puts its hooks on a module before it splits the first parameter of the module: a program that
        imports it only after the model is built is in time here, and nowhere later."""
        original = nn.Module.register_forward_pre_hook

        @functools.wraps(original)
        def register_forward_pre_hook(module: nn.Module, *args: Any, **kwargs: Any) -> object:
            if not self._gathering and self.looking():
                self._look_for_gathering(patches)
            return original(module, *args, **kwargs)

        return register_forward_pre_hook

    def _watch_gathering(self, patches: contextlib.ExitStack, param: Any, group: object) -> None:
        """FSDP2 gathers whole parameters before a module runs: what is computed from them is computed from
        the parts."""
        for name in ("unshard", "wait_for_unshard"):
            patches.enter_context(_patched(group, name, self._unnoted(getattr(group, name))))
        original = param.to_unsharded

        @functools.wraps(original)
        def to_unsharded(sharded: object, *args: object, **kwargs: object) -> object:
            out = original(sharded, *args, **kwargs)
            both = distributed.whole_and_part(sharded)
            if both is not None and self.observer.active:
                with self.observer.guarded():
                    self.observer.ledger.same(*both)
            return out

        patches.enter_context(_patched(param, "to_unsharded", to_unsharded))
        patches.enter_context(_patched(param, "__init__", self._split(param)))

    def _split(self, param: Any) -> Callable[..., None]:
        """FSDP2 makes its parts of what the program has built, and perhaps copied, before."""
        original = self._unnoted(param.__init__)

        @functools.wraps(original)
        def __init__(split: object, whole: torch.Tensor, *args: object, **kwargs: object) -> None:
            original(split, whole, *args, **kwargs)
            part = distributed.part_held(split)
            if part is not None and self.observer.active:
                with self.observer.guarded():
                    self.observer.ledger.split(whole, part)

        return __init__

    def _apply(self, cls: type, original: Apply, args: Args, kwargs: Kwargs) -> object:
        if not self.looking():
            return original(*args, **kwargs)
        kind = "checkpoint" if cls.__name__ == "CheckpointFunction" else "function"
        return self._region(original, kind, cls.__qualname__, (cls,))(*args, **kwargs)

    # ------------------------------------------------------------------ backward, optimizers, the rest

    def _backward(self, original: Callable[..., object]) -> Callable[..., object]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def backward(tensors: object, *args: object, **kwargs: object) -> None:
            observer = self.observer
            if not self.attending():
                backwards.nested(observer, tensors)
                original(tensors, *args, **kwargs)
                return
            if kwargs.get("retain_graph") or kwargs.get("create_graph"):
                observer.again = True

            def walk() -> backwards.Walk:
                arguments: dict[str, object] = {}
                with contextlib.suppress(TypeError):  # that do not fit: torch's own words are to come
                    arguments = signature.bind(tensors, *args, **kwargs).arguments
                return backwards.walk_of("Tensor.backward", arguments)

            observer.before_backward()
            asked = original, len(args), *kwargs
            turn = backwards.turn_of(observer, asked, (tensors, *args, *kwargs.values()), tensors)
            if turn is not None and observer.rounds.comparing:
                with backwards.again(observer, tensors, walk, turn):
                    original(tensors, *args, **kwargs)
            else:
                with backwards.around(observer, tensors, walk(), turn):
                    original(tensors, *args, **kwargs)

        return backward

    def _step_begins(
        self, optimizer: Optimizer, args: Args, kwargs: dict[str, Any]
    ) -> tuple[tuple[object, ...], dict[str, object]] | None:
        """What the step is called with instead, where it is given a closure: that runs the program's own
        forward and backward."""
        self._stepping(optimizer, self._before_step)
        if self.observer.active and self.observer.nested and os.getpid() == self._process:
            self.optimizers.add(optimizer)
            self.on_step_within(optimizer)
        if not self.looking():
            return None
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._closure(args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._closure(kwargs["closure"])}
        return None

    def _closure(self, closure: Callable[..., object]) -> Callable[..., object]:
        code = getattr(getattr(closure, "__func__", closure), "__code__", None)
        if code is not None:
            self.closures.add(code)

        @functools.wraps(closure)
        def call(*args: object, **kwargs: object) -> object:
            before, self.observer.stepping = self.observer.stepping, False
            try:
                return closure(*args, **kwargs)
            finally:
                self.observer.stepping = before

        return call

    def _stepping(self, optimizer: Optimizer, then: Callable[[Optimizer], None]) -> None:
        if self.attending():
            self.optimizers.add(optimizer)
            then(optimizer)
        elif self.when_over is not None and not self.observer.active:
            self.when_over()

    def _optimizer_made(self) -> Callable[..., None]:
        original = Optimizer.__init__

        @functools.wraps(original)
        def __init__(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            coverage = self.observer.coverage
            # The first one imports torch's compiler: seconds of module code. A generator is the user's.
            given = (*args, *kwargs.values())
            resting = not any(isinstance(item, GeneratorType) for item in given) and coverage.rest()
            try:
                original(optimizer, *args, **kwargs)
            finally:
                if resting:
                    coverage.resume()
            self.optimizers.add(optimizer)
            if self.attending():
                self.made[optimizer] = user_spots(sys._getframe(1), self.observer.ledger.boundary)

        return __init__

    def _zeroed(self) -> Callable[..., None]:
        """`zero_grad()` leaves no trace where there was no gradient yet, and says for whom the next backward
        is."""
        original = Optimizer.zero_grad

        @functools.wraps(original)
        def zero_grad(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            if self.looking():
                observer = self.observer
                spots = user_spots(sys._getframe(1), observer.ledger.boundary)
                made = Zeroed(observer.ledger.count, weakref.ref(optimizer), spots, len(observer.backwards))
                observer.zeroed = [*observer.zeroed[1 - ZEROED :], made]

        return zero_grad

    def _seen_when_made(
        self, original: Callable[..., object], patches: contextlib.ExitStack
    ) -> Callable[..., object]:
        """`nn.Parameter(t)`, `Variable(t)`: a new leaf, met where it is made and not only where it is
        used."""

        def make(cls: object, *args: object, **kwargs: object) -> object:
            out = original(cls, *args, **kwargs)
            if self.looking():
                observer = self.observer
                turn = observer.turn(cls, args, kwargs)
                if turn is not None and observer.rounds.comparing:
                    observer.rounds.repeated(turn, out)
                    return out
                if not self._gathering:
                    self._look_for_gathering(patches)
                observer.before(out)
                if cls is nn.Parameter and observer.ledger.stack:
                    self._made_in_forward(out)
                if turn is not None:
                    observer.rounds.noted(turn, out)
            return out

        return make

    def _made_in_forward(self, parameter: Any) -> None:
        """A Parameter that a call of a module makes, as another call had: not one that is made late, once.
        The second call stands for all."""
        ledger = self.observer.ledger
        slot = ledger.tensors.get(parameter)
        note = next(
            (n for n in reversed(ledger.notes[-2:]) if slot is not None and slot.value in n.makes), None
        )
        if note is None:
            return
        made = self._made.setdefault((ledger.spots(), shape_of(parameter)), {})
        made.setdefault(self._turn, []).append(note)
        if len(made) == 1:
            return
        first, second = itertools.islice(made, 2)
        for other in made.pop(self._turn) if self._turn != second else (*made[first], note):
            own = other is note and self._turn == second
            other.kind, other.target = "leaf", "torch.nn.Parameter" if own else "torch.nn.Parameter, again"
            other.spots = other.spots or ledger.spots()

    def _from_numpy(self) -> Callable[..., object]:
        original = torch.from_numpy

        @functools.wraps(original)
        def from_numpy(array: object) -> torch.Tensor:
            observer = self.observer
            turn = observer.turn(original, (observer.is_known(array),), {}) if self.looking() else None
            if turn is not None and observer.rounds.comparing:
                out = original(array)
                observer.rounds.repeated(turn, out)
                return out
            kind = observer.kind(original, "as_tensor", (array,), {}) if self.looking() else None
            out = original(array)
            repeats = (
                kind is not None
                and kind.left <= 0
                and observer.active
                and observer.unlike(kind, [], out) is None
            )
            if self.looking() and not repeats:
                note = observer.after("entry", "torch.from_numpy", [], out)
                if note is not None and out.is_floating_point():
                    observer.from_python(note)
                if kind is not None:
                    observer.repeats.noted(kind, note, out)
            if turn is not None:
                observer.rounds.noted(turn, out)
            return out

        return from_numpy

    def _compile(self, stack: contextlib.ExitStack) -> Callable[..., object]:
        original = torch.compile

        @functools.wraps(original)
        def compile(*args: Any, **kwargs: Any) -> object:
            compiled = original(*args, **kwargs)
            self.compiles = True
            self.whole = self.whole or kwargs.get("fullgraph") is True
            self.compiled = self.compiled or user_spots(sys._getframe(1), self.observer.ledger.boundary)
            if self.attending() and dynamo_is_loaded():
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            return compiled

        return compile


def _is_opaque(module: nn.Module, out: object) -> bool:
    return (
        torch.is_grad_enabled()
        and distributed.split_by(module) == "fully_shard"
        and not distributed.shows_tensors(out)
    )


@contextlib.contextmanager
def _patched(holder: object, name: str, value: object) -> Iterator[None]:
    own = name in vars(holder)
    original = vars(holder).get(name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if vars(holder).get(name) is not value:
            pass  # somebody else has put theirs over it; ours passes everything through by now
        elif own:
            setattr(holder, name, original)
        else:
            delattr(holder, name)
