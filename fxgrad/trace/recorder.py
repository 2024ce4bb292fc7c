"""The recorder: a `TorchFunctionMode` that writes a `torch.fx` graph while the program runs, and notes what
autograd did at each step.

Every torch call the program makes arrives here. The user's tensors are swapped for their stand-ins, the call
runs, a node is written, and the results are bound to it. Beside the graph it keeps raw observations
(`fxgrad.trace.observations`); `fxgrad.trace.facts` makes records of them. What is not a call on tensors alone
(properties, sizes, truth values, numbers) is in `fxgrad.trace.reads`.

Note [Quiet regions]: inside a `torch.nn` leaf module, an `autograd.Function`, a checkpointed function, a
functorch transform and during backward the recorder only swaps tensors: the whole region is one node. Tensors
that such a region reads without being given them (its parameters, closures) are its *hidden reads*.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.fx.node import Argument
from torch.overrides import TorchFunctionMode

from fxgrad.records import Phase
from fxgrad.records.facts import Delivered
from fxgrad.source.raising import raising_outcome
from fxgrad.source.sites import Anchor, Spot, site_of, user_frames, user_spots
from fxgrad.torch_api import allowed_writes, calls, errors, registry, symbols
from fxgrad.torch_api.calls import (
    DECISIONS,
    EFFECTS,
    ESCAPES,
    QUERIES,
    SIZES,
    TAKE_DATA,
    Args,
    Function,
    Kwargs,
)
from fxgrad.torch_api.engine import ENGINE
from fxgrad.torch_api.internals import (
    DisableTorchFunction,
    HigherOrderOperator,
    transforms_active,
    version_of,
)
from fxgrad.torch_api.symbols import Asked, Origin
from fxgrad.torch_api.tensors import TENSOR_CLASSES
from fxgrad.trace import entries, fake_kernels, reads
from fxgrad.trace.arguments import EXACTLY_PLAIN, SEQUENCES, SYMBOLIC, Arguments
from fxgrad.trace.derivatives import Derivatives
from fxgrad.trace.effort import Effort
from fxgrad.trace.experiment import Nudge, mask_shape, selecting_all, selects, selects_nothing
from fxgrad.trace.notes import Called
from fxgrad.trace.observations import (
    Assumed,
    NeedsValue,
    Observations,
    RawDecision,
    RawValue,
    Shared,
    Step,
)
from fxgrad.trace.progress import EVERY, begin_run
from fxgrad.trace.python_state import Read
from fxgrad.trace.sampling import is_sampling
from fxgrad.trace.slots import Slot
from fxgrad.trace.subclasses import Births
from fxgrad.world.private import Lent
from fxgrad.world.reach import Reach
from fxgrad.world.scopes import FUNCTIONS
from fxgrad.world.standins import StandIns

ENDLESS = 200  # outcomes at one place that nothing knows, before a loop on them is taken to be endless


class Recorder(TorchFunctionMode):
    """Records one run. `root` names parameters, buffers and modules; `forced` are outcomes for the first
    decisions on data.

    `assumed` is what the program was told and no node follows, `externals` the tensors from before the run
    that no name leads to, `hidden` the stack of hidden reads of the quiet regions the program is in: by
    tensor id, the tensor the program names and its slot.
    """

    sketches = False  # whether it writes no graph: `fxgrad.trace.sketch`

    def __init__(
        self,
        root: nn.Module,
        reach: Reach,
        standins: StandIns,
        boundary: CodeType,
        forced: Sequence[bool | None] = (),
    ) -> None:
        super().__init__()
        self.root = root
        self.reach = reach
        self.standins = standins
        self.boundary = boundary
        self.forced = tuple(forced)
        self.active = True
        self.thread = threading.get_ident()
        self.graph = torch.fx.Graph()
        self.quiet = 0
        self.making = False  # a stand-in: what torch does for it is none of the program's
        self.phase: Phase = "forward"
        self.progress = begin_run()
        self.births = Births()
        self.attributes: dict[str, object] = {}
        self.seen = Observations()
        self.values: list[RawValue] = self.seen.values
        self.steps: list[Step] = self.seen.steps
        # by the id of a tensor object: its own, and of one of the user's that of its stand-in
        self.slots: dict[int, Slot] = self.seen.tensors.by_id
        self.storage_number = self.seen.storage_number
        self.calls: list[Called] = []
        self.called: set[int] = set()
        self.decisions: list[RawDecision] = []
        self._unknown: Counter[Spot | None] = Counter()  # by place, the outcomes that only data could tell
        self.escapes: list[int] = []
        self.shared: list[Shared] | None = None  # memory that NumPy and torch share, where it is watched
        # writes that autograd refuses are carried out; the leaves these name enter as copies
        self.allow: frozenset[str] | None = None
        self.applied: Callable[[Step, object], None] | None = None  # told of every custom Function's result
        self.open_checkpoints = False  # see `fxgrad.program.program.Program`
        # what the program computes where no mode sees it, and where that shows
        self.unseen: tuple[str, tuple[Spot, ...]] | None = None
        # gradients that came to parameters with hooks of their own, by the parameters' ids
        self.arrived: dict[int, Delivered] = {}
        # where the program looked at autograd's graph, in which stand-ins are
        self.looks: tuple[Spot, ...] = ()
        # where it was told that there is no gradient, and a backward before the run had left one
        self.missed_gradient: tuple[Spot, ...] = ()
        # calls that raised: where the program went on, it went on without them
        self.raised: set[torch.fx.Node] = set()
        self.effort: Effort | None = None  # what the run may compute, where it may not compute all
        self.nudge: Nudge | None = None  # what is handed to the program disturbed
        self.nudged_shape: tuple[int, ...] | None = None
        self.selections: list[Step] = []  # steps whose result's size depends on data
        self.assumptions = False  # whether what follows is noted
        self.assumed: list[Assumed] = []
        self.sizes_read = False
        self.open_numbers = self.unfollowed = False
        self.taken_by_c = 0  # open numbers whose value C code asked for, where it would have taken it
        self.reads: dict[tuple[int, str], Read] = {}  # of Python's side: attributes, globals
        # the functions that may run, and what they name
        self.scopes: list[tuple[FunctionType, list[Read]]] = []
        # by id: what the program calls the module or object whose attributes are read
        self.owners: dict[int, str] = {}
        self.inputs: dict[int, torch.fx.Node] = {}  # by the id of the user's tensor: its placeholder
        self.externals: dict[int, tuple[torch.Tensor, int]] = {}
        self.path_stack: list[str] = [""]
        self.anchors: list[Anchor] = []  # one per inlined module call
        self.hidden: list[dict[int, tuple[torch.Tensor, Slot]]] = []
        self.current: Step | None = None
        self._raised_last: tuple[int, str, Step | None] = (0, "", None)
        self.frames: dict[int, FrameType] = {}
        self.entered_regions: dict[int, list[torch.fx.Node]] = {}
        self.derivatives = Derivatives()
        self.hook_nodes: dict[int, torch.fx.Node] = {}
        self.symbol_values: dict[int, int] = {}
        self.origins: list[Origin] = []  # kept alive: `symbol_values` goes by their ids
        self.names: dict[int, str] = {}
        for name, tensor in _named_tensors(root):
            self.names.setdefault(id(tensor), name)
        self.paths = {id(module): name for name, module in registry.named_modules(root)}
        self.object_names: dict[int, str] = {}
        self.lent = Lent()
        # what autograd keeps for backward, by the numbers it was given instead
        self.saved: list[torch.Tensor] = []
        self._keep: list[object] = []
        if standins.fake is not None:
            standins.fake.listener = self

    def __del__(self) -> None:
        # The garbage collector calls this before it takes any part of the run apart, whoever refers to whom.
        if hasattr(self, "_keep"):
            _let_go(self.seen, self.saved, self._keep)

    # ------------------------------------------------------------------ frames and steps

    def spots(self) -> tuple[Spot, ...]:
        """The user's frames at this moment."""
        frame = sys._getframe(1)
        if self.phase == "loss":
            # Kept for its last instruction: a frame that has returned still knows by which statement.
            for user in user_frames(frame, self.boundary):
                self.frames[id(user)] = user
        return self.spots_from(frame)

    def spots_of_birth(self) -> tuple[Spot, ...]:
        """The user's frames where a subclass is made; () where nobody looks."""
        looking = self.active and not self.quiet and threading.get_ident() == self.thread
        return self.spots() if looking else ()

    def spots_from(self, frame: FrameType) -> tuple[Spot, ...]:
        """The user's frames from `frame` outwards. Of the deep stack of a big model only what is inside the
        current module is walked."""
        return user_spots(frame, self.boundary, self.anchors[-1] if self.anchors else None)

    def add_step(self, node: torch.fx.Node, kind: str, target: str, spots: tuple[Spot, ...]) -> Step:
        """Start the observation of a node."""
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        sampled = not grad and is_sampling(sys._getframe(1))
        step = Step(node, kind, target, spots, self.path_stack[-1], self.phase, grad, inference, sampled)
        self.steps.append(step)
        if self.progress is not None and len(self.steps) % EVERY == 0:
            self.progress.at(self.phase, len(self.steps))
        return step

    # ------------------------------------------------------------------ tensors

    def slot_of(self, tensor: torch.Tensor) -> Slot:
        """The slot of a tensor the program hands to torch; an unknown one enters the graph here."""
        slot = self.slots.get(id(tensor))
        return slot if slot is not None else entries.adopted(self, tensor)

    def ended_with(self, loss: torch.Tensor) -> Slot:
        """The slot of the loss that backward starts from."""
        return self.slot_of(loss)

    def note_unseen(self, what: str, begun: tuple[Spot, ...] = ()) -> None:
        """The run is no record of the program: it computes with its tensors out of the recorder's sight.
        `begun`: the line, if none is here."""
        if self.unseen is None:
            self.unseen = what, self.spots() or begun

    def handed(self, item: Any) -> object:
        """What the program gets of a call's result: where that is a tensor's stand-in, the tensor itself
        (`x.add_(1) is x`)."""
        if isinstance(item, torch.Tensor):
            original = self.standins.stood_for(item)
            if original is None or id(item) not in self.slots or self.standins.get(original) is not item:
                return item
            self.slots.setdefault(id(original), self.slots[id(item)])
            return original
        if type(item) in (tuple, list):
            parts = [self.handed(part) for part in item]
            return item if all(map(operator.is_, parts, item)) else type(item)(parts)
        return item

    def standin(self, tensor: torch.Tensor) -> torch.Tensor:
        """The stand-in of a tensor of the user's; torch's own making of it is not the program's doing."""
        known = self.standins.get(tensor)
        if known is not None:
            return known
        # A subclass may answer for its copies itself; for all others no mode is asked at each of torch's
        # calls.
        ours, outer = type(tensor) in TENSOR_CLASSES, self.making
        self.making = ours
        self.quiet += 1
        try:
            with DisableTorchFunction() if ours else contextlib.nullcontext():
                made = self.standins.make(tensor)
            self.lent.lend(tensor, made)
        finally:
            self.quiet -= 1
            self.making = outer
        return made

    # ------------------------------------------------------------------ arguments

    def converted(self, *items: object) -> tuple[tuple[Any, ...], tuple[Any, ...], list[Slot], list[int]]:
        """Items as a call gets them, as the graph holds them, the slots they read and the values of the
        numbers among them."""
        given = Arguments(self)
        pairs = [given.convert(item) for item in items]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), given.reads, given.numbers

    def symbol_reads(self, origin: Origin) -> Iterator[int]:
        """The values that a number was computed from."""
        for inner in origin.walk():
            value = self.symbol_values.get(id(inner))
            if value is not None and inner.owner is self:
                yield value

    def symbol_node(self, target: Any, args: tuple[Any, ...]) -> torch.fx.Node:
        """The node of a symbolic number, written at its first use."""
        if target == "size":
            return self.graph.call_method("size", args)
        return self.graph.call_function(target, args)

    # ------------------------------------------------------------------ running a call

    def __torch_function__(
        self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        kwargs = kwargs or {}
        if not self.active or threading.get_ident() != self.thread:
            return func(*args, **kwargs)
        if self.reach.ctrl_c.pending is not None:
            self.reach.ctrl_c.deliver()
        name: str = getattr(func, "__name__", "") or str(func)
        if name in TAKE_DATA and self.standins.fake is not None:
            self._refuse_to_take_data(name, args)
        if self.quiet or transforms_active():
            return self._quietly(func, name, args, kwargs)
        if name == "__get__":
            return reads.read_property(self, func, args)
        if name in QUERIES:
            return reads.query(self, func, name, args, kwargs)
        if name in SIZES:
            return reads.read_size(self, func, name, args, kwargs)
        if name in DECISIONS:
            return reads.decide_on_tensor(self, func, args, kwargs)
        if name in ESCAPES:
            return reads.read_value(self, func, name, args, kwargs)
        return self._operation(func, name, args, kwargs)

    def swap(self, item: Any) -> Any:
        """Stand-ins for the user's tensors in an argument tree, nothing recorded but hidden reads."""
        if type(item) in EXACTLY_PLAIN:
            return item
        if isinstance(item, torch.Tensor):
            slot = self.slots.get(id(item))
            if slot is None:
                # Only what the user owns: torch's own meta kernels come through here as well, on tensors of
                # theirs.
                if id(item) not in self.reach.tensors:
                    return item
                slot = entries.external(self, item)
            for region in self.hidden:
                region.setdefault(id(item), (item, slot))
            return slot()
        if isinstance(item, SYMBOLIC):
            return symbols.plain(item)
        kind = type(item)
        if kind is tuple or kind is list:
            return kind(map(self.swap, item))
        if kind is dict:
            return {k: self.swap(v) for k, v in item.items()}
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return kind(*(self.swap(x) for x in item))
        return item

    def _quietly(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        args = tuple(map(self.swap, args))
        if kwargs:
            kwargs = self.swap(kwargs)
        if name in ENGINE or takes_functions(func, name, args, kwargs):
            return self._run_back(func, name, args, kwargs)
        try:
            out = func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError) as error:
            if (
                name in DECISIONS
                and self._in_leaf_module()
                and self.standins.fake is not None
                and errors.is_value_error(error)
            ):
                # torch.nn asks whether a shortcut applies (is this mask causal?): the general way is always
                # right
                return False
            self.refuse_valueless(error, name)
            raise
        if self.standins.fake is not None and not transforms_active():
            fake_kernels.finish_fake_write(name, args, {})
        return out

    def _refuse_unformulated(self, target: str, slots: Sequence[Slot]) -> None:
        """Raise NeedsValue for a custom operator without an autograd formula where its real kernel can run:
        torch then records what that kernel happens to do, which a fake kernel does not tell."""
        if self.standins.fake is None or not self.standins.all_have_data:
            return
        if not any(slot.tensor.requires_grad for slot in slots):
            return
        operator = calls.custom_operator(target)
        if operator is not None and torch.is_grad_enabled() and not calls.has_formula(operator):
            raise NeedsValue(
                f"`{operator}` has no autograd formula, so its kernel decides what is recorded", self.spots()
            )

    def refuse_unseen_write(self, written: Sequence[torch.Tensor]) -> None:
        """Raise NeedsValue where an operator writes a tensor of the user's itself, past the modes: on real
        values such a write is private."""
        if any(id(tensor) in self.reach.tensors for tensor in written):
            raise NeedsValue("a write where no mode of torch looks needs memory", self.spots())

    def _refuse_to_take_data(self, name: str, args: Args) -> None:
        """Raise NeedsValue where a fake tensor is pickled, shared or written out; text without a format says
        that it is one."""
        if name != "__format__" or any(args[1:]):
            raise NeedsValue(f"`{name.strip('_')}` takes the data", self.spots())

    def _in_leaf_module(self) -> bool:
        return self.current is not None and self.current.kind == "module"

    def refuse_valueless(self, error: BaseException, name: str) -> None:
        """Raise NeedsValue if this error says that a fake tensor has no value, or comes from a fake kernel
        where real ones could run."""
        if self.standins.fake is None:
            return
        if errors.is_value_error(error):
            raise NeedsValue(f"{calls.spoken(name)} reads a value", self.spots()) from error
        if self.standins.all_have_data and errors.is_kernel_error(error):
            raise NeedsValue(
                f"`{name.strip('_')}` does not run without values ({type(error).__name__}: {error})",
                self.spots(),
            ) from error

    def region(self) -> _Region:
        """A quiet region; as it is entered it gives its hidden reads, as they are found."""
        return _Region(self)

    def _operation(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        if name in calls.CAPTURED_WHOLE and isinstance(func, HigherOrderOperator):
            raise errors.captured_whole(next(map(site_of, self.spots()), None), name)
        given = Arguments(self)
        (sub_args, sub_kwargs), (node_args, node_kwargs) = given.of_call(args, kwargs)
        slots = given.reads
        node = self._node(func, name, given.with_shapes(name, args, node_args), node_kwargs)
        step = self.add_step(node, "op", calls.target_name(func, name), self.spots())
        step.constants = tuple(given.constants)
        step.reads = [slot.value for slot in slots] + given.numbers
        step.operands, step.settings = tuple(given.operands), tuple(given.settings)
        self.current = step
        self._refuse_unformulated(step.target, slots)
        sub_args = self._in_place_of(step, name, sub_args)
        try:
            if name in ENGINE or takes_functions(func, name, args, kwargs):
                with self.region() as hidden:
                    out = self._run_back(func, name, sub_args, sub_kwargs)
                slots = slots + [slot for _, slot in hidden.values() if slot not in slots]
            else:
                out = self._run(func, name, sub_args, sub_kwargs)
        except Exception as error:
            self.raises(step, error)
            raise
        if self.standins.fake is not None and name not in ENGINE:
            fake_kernels.finish_fake_write(name, sub_args, {id(slot.tensor): slot.version for slot in slots})
        self.finish(step, slots, out, keep=name in EFFECTS or name == "__set__")
        self.current = None
        if isinstance(out, SEQUENCES) and not hasattr(out, "_fields"):
            self.assume(symbols.LEN, (node,), len(out), weak=True)
        return self.handed(out)

    def raises(self, step: Step, error: Exception) -> None:
        """A step has raised. What runs on the way out (a `with` that ends, a profiler's mark) is not what
        did."""
        self.raised.add(step.node)
        self._raised_last = id(error), str(error), step

    def step_raising(self, error: Exception) -> Step | None:
        """The step that raised the error, if one did; else the one that runs now."""
        number, text, step = self._raised_last
        return step if (number, text) == (id(error), str(error)) else self.current

    def _in_place_of(self, step: Step, name: str, args: tuple[Any, ...]) -> tuple[object, ...]:
        """What a call runs on in place of its arguments: a hook is handed the program's own parameter, the
        nudge may change a selection."""
        if name == "register_post_accumulate_grad_hook":
            original = self.standins.stood_for(args[0])
            return args if original is None else (args[0], self.standins.hook_of(original, args[1]))
        if selects(name, args):
            if self.nudge is not None and self.nudge.selection:
                args = self._nudged_selection(name, args)
            self.selections.append(step)
        return args

    def _run_back(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        """A call in which torch calls functions of the program: the recorder, which is off while it handles a
        call, is on in those."""
        if name in ENGINE:
            with self:
                return ENGINE[name](*args, **kwargs)

        def again(item: object) -> object:
            if not isinstance(item, _CALLABLE):
                return item

            def call(*inner: object, **named: object) -> object:
                with self:
                    return item(*inner, **named)

            return call

        return self._run(
            func, name, tuple(map(again, args)), {key: again(item) for key, item in kwargs.items()}
        )

    def _nudged_selection(self, name: str, args: Args) -> tuple[object, ...]:
        """The selection that the nudge names takes everything, and so does every later one of that shape that
        would take nothing."""
        assert self.nudge is not None
        named = self.nudge.number == len(self.selections)
        shape = mask_shape(name, args)
        if not named and (
            self.nudged_shape is None or shape != self.nudged_shape or not selects_nothing(name, args)
        ):
            return args
        self.nudged_shape = shape
        return selecting_all(name, args)

    def _run(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        self.quiet += 1  # what torch does inside the call is not the program's doing
        try:
            return func(*args, **kwargs) if self.allow is None else allowed_writes.call(func, args, kwargs)
        except Exception as error:
            self.refuse_valueless(error, name)
            raise
        finally:
            self.quiet -= 1

    def _node(
        self, func: Any, name: str, args: tuple[Argument, ...], kwargs: dict[str, Argument]
    ) -> torch.fx.Node:
        if name == "__set__":
            return self.graph.call_function(setattr, (args[0], func.__self__.__name__, args[1]))
        return calls.add_call(self.graph, func, name, args, kwargs)

    def finish(self, step: Step, slots: Sequence[Slot], out: object, *, keep: bool) -> None:
        """Bind what a node returned and wrote; drop the node where it did neither."""
        written = _written(step, slots)
        if step.target == "Tensor.__set__" and slots:
            written = [slots[0]]
        made = self._bind_outputs(step, out, step.node)
        if self.effort is not None:
            self.effort.spend(step.kind, step.target, slots, out)
        if written:
            self.seen.note_writes(step, written)
        if not made and not written and not keep:
            self.seen.drop(step)
            if not step.node.users:
                self.graph.erase_node(step.node)

    def note_differentiated(self, step: Step, tensors: Iterable[torch.Tensor]) -> None:
        """What a step took derivatives of. It makes what no step has made: the graph has no use for that."""
        for tensor in tensors:
            slot = self.slots.get(id(tensor))
            if slot is None:
                value = self.seen.new_value(tensor, step.node.name, self.storage_number(tensor))
                step.makes.append(value)
            else:
                value = slot.value
                if value not in step.makes:
                    step.reads.append(value)
            step.differentiated.append(value)

    def _bind_outputs(self, step: Step, out: object, node: torch.fx.Node) -> bool:
        if isinstance(out, torch.Tensor):
            step.makes.append(self.seen.bind(out, node, step.node.name).value)
            return True
        made = False
        for how, key, item in _parts(out):
            if isinstance(item, torch.Tensor | tuple | list | dict):
                made |= self._bind_part(step, item, how, node, key)
        return made

    def _bind_part(
        self, step: Step, item: object, how: Callable[..., object], node: torch.fx.Node, key: Any
    ) -> bool:
        part = self.graph.call_function(how, (node, key))
        made = self._bind_outputs(step, item, part)
        if not made:
            self.graph.erase_node(part)
        return made

    # ------------------------------------------------------------------ for the interceptions

    def bind(self, tensor: torch.Tensor, node: torch.fx.Node, step_name: str) -> Slot:
        """`tensor` is now what `node` computes."""
        return self.seen.bind(tensor, node, step_name)

    def keep(self, item: object) -> None:
        """Hold on to an object that is known by its id."""
        self._keep.append(item)

    def assume(
        self, target: object, args: Args, taken: object, *, weak: bool = False, what: str = ""
    ) -> None:
        """The program goes on with `taken`, which no node follows."""
        if self.assumptions and not self.quiet and self.phase == "forward":
            self.assumed.append(Assumed(target, args, taken, self.spots(), what, weak))

    def asked(self) -> None:
        """C code asked for the value of an open number."""
        if not self.quiet and self.phase == "forward":
            self.taken_by_c += 1

    def decide(self, outcome: bool, asked: Asked) -> bool:
        """A comparison of a number read off data."""
        if self.quiet:
            return outcome
        numbers = [item for item in asked[1] if isinstance(item, SYMBOLIC)]
        read = (value for number in numbers for value in self.symbol_reads(number.origin))
        return self.decided(outcome, "", self.spots(), tuple(read), asked)

    def decided(
        self,
        outcome: bool | None,
        node: str,
        spots: tuple[Spot, ...],
        read: tuple[int, ...],
        asked: Asked | None = None,
    ) -> bool:
        """Note a branch on data and say which way to go: the forced one, else the known one, else False, or
        True where the program raises else.

        Raises:
            NeedsValue: a loop goes round on outcomes that nothing knows, and may never end.
        """
        index = len(self.decisions)
        known = outcome is not None
        raises = raising_outcome(sys._getframe(1), self.boundary)
        if index < len(self.forced) and self.forced[index] is not None:
            outcome = bool(self.forced[index])
        if outcome is None:
            place = spots[0] if spots else None
            self._unknown[place] += 1
            if self._unknown[place] > ENDLESS:
                raise NeedsValue("a loop asks again and again for what only data can tell", spots)
        final = bool(outcome) if outcome is not None else raises is False
        self.decisions.append(RawDecision(spots, node, final, known, read, asked, raises))
        return final


class _Region:
    """A class, for one is entered at each layer: a generator takes twice the time."""

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> dict[int, tuple[torch.Tensor, Slot]]:
        found: dict[int, tuple[torch.Tensor, Slot]] = {}
        self._recorder.hidden.append(found)
        self._recorder.quiet += 1
        return found

    def __exit__(self, *_: object) -> None:
        self._recorder.quiet -= 1
        self._recorder.hidden.pop()


_CALLABLE = (*FUNCTIONS, nn.Module)


def _written(step: Step, slots: Sequence[Slot]) -> list[Slot]:
    """Of these what the step wrote."""
    written = [slot for slot in slots if version_of(slot.tensor) != slot.version]
    # keywords come last: whether there are any is seen from the last
    if step.operands and isinstance(step.operands[-1][0], str):
        # `out` is written, also where no version counter moves (`torch.kron`)
        room = {value for key, value in step.operands if key == "out"}
        written = [slot for slot in slots if slot in written or slot.value in room]
    return written


def takes_functions(func: object, name: str, args: Args, kwargs: Kwargs) -> bool:
    """Whether a call of a function of torch's in Python hands it functions of the program to call (a loss
    over a distance of one's own)."""
    return (
        isinstance(func, FunctionType)
        and name not in EFFECTS
        and any(isinstance(a, _CALLABLE) for a in (*args, *kwargs.values()))
    )


def _parts(out: object) -> Iterator[tuple[Callable[..., object], Any, object]]:
    """What is in a call's result, and how a graph takes it out."""
    if isinstance(out, SEQUENCES):
        yield from ((operator.getitem, i, item) for i, item in enumerate(out))
    elif isinstance(out, dict):
        yield from ((operator.getitem, key, item) for key, item in out.items())
    elif dataclasses.is_dataclass(out):
        yield from ((getattr, key, getattr(out, key, None)) for key in out.__dataclass_fields__)


def _named_tensors(root: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from registry.named_parameters(root, remove_duplicate=False)
    yield from registry.named_buffers(root, remove_duplicate=False)


__all__ = ["NeedsValue", "RawDecision", "RawValue", "Recorder", "Step", "takes_functions"]


def _let_go(seen: Observations, saved: list[torch.Tensor], keep: list[object]) -> None:
    """Give back what a run holds of autograd's graph, the loss's end first, as the recorder goes.

    torch frees a chain of nodes that Python has looked at by recursion: one of 50,000 freed from its
    beginning, as the garbage collector may, overflows the C stack (torch 2.13, plain tensors too). From its
    end each node finds the one before it still held.
    """
    keep.clear()
    saved.clear()
    while seen.values:
        seen.values.pop()
