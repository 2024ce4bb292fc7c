"""The program's own hooks on saved tensors: they are handed the tensors that it knows, and what they do is
the recorder's to see.

Autograd saves a leaf as it is, so a hook may ask `t is self.weight`; in a run that is the weight's stand-in.
What the hook computes (a copy elsewhere, another dtype) it computes on stand-ins, and what it gives back is
one again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from torch.autograd.graph import saved_tensors_hooks

from fxgrad.trace.recorder import Recorder


def interceptions(recorder: Recorder) -> Iterator[tuple[object, str, object]]:
    """(class, attribute, replacement) for `fxgrad.trace.seams`."""
    yield saved_tensors_hooks, "__enter__", _enter(recorder)


def _enter(recorder: Recorder) -> Callable[[saved_tensors_hooks], None]:
    original = saved_tensors_hooks.__enter__

    def __enter__(hooks: saved_tensors_hooks) -> None:
        pack, unpack = hooks.pack_hook, hooks.unpack_hook
        if not recorder.active or threading.get_ident() != recorder.thread or not _are_programs(pack, unpack):
            original(hooks)
            return
        hooks.pack_hook = lambda tensor: _called(recorder, pack, recorder.handed(tensor))
        hooks.unpack_hook = lambda packed: recorder.swap(_called(recorder, unpack, packed))
        try:
            original(hooks)
        finally:
            hooks.pack_hook, hooks.unpack_hook = pack, unpack

    return __enter__


def _called(recorder: Recorder, hook: Callable[..., object], given: object) -> object:
    """Autograd calls a hook in the midst of an operation, while the recorder is off."""
    if not recorder.active:
        return hook(given)
    with recorder.region(), recorder:
        return hook(given)


def _are_programs(*hooks: Callable[..., object]) -> bool:
    """Whether a pair of hooks is neither torch's (a checkpoint's) nor ours; a builtin method says of neither
    half whose it is."""
    packages = {(getattr(hook, "__module__", None) or "").partition(".")[0] for hook in hooks}
    return not packages & {"torch", "fxgrad"}
