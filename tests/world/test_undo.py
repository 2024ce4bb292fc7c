"""Every kind of Python object that a forward can change is as before: containers, counters, class and module state, flags, modes.

Each case is what a forward does and a picture of what it may have changed; the picture differs if the forward runs without fxgrad.
"""

from __future__ import annotations

import array
import builtins
import collections
import contextlib
import contextvars
import decimal
import faulthandler
import functools
import gc
import importlib
import io
import itertools
import locale
import logging
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fxgrad
from fxgrad import Options
from fxgrad.trace import regions
from fxgrad.world import reach

CASES: dict[str, tuple[Callable[[Any, torch.Tensor], Any], Callable[[], Any]]] = {}


def case(picture: Callable[[], Any]) -> Callable[[Callable[[Any, torch.Tensor], Any]], None]:
    def add(act: Callable[[Any, torch.Tensor], Any]) -> None:
        CASES[act.__name__] = (act, picture)

    return add


class Model(nn.Module):
    def __init__(self, act: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.act(self, x)
        return self.layer(x)


# ---------------------------------------------------------------------------------------------------------------- globals

LAZY: dict[int, Any] | None = None


@case(lambda: (LAZY, "MADE" in globals()))
def globals_made_and_filled(model: Any, x: torch.Tensor) -> None:
    global LAZY
    LAZY = {1: x}
    globals()["MADE"] = x


def helper(n: int) -> Any:
    if not hasattr(helper, "kept"):
        helper.kept = {}  # type: ignore[attr-defined]  # a function's attribute
    return helper.kept.setdefault(n, torch.ones(n))  # type: ignore[attr-defined]  # see above


@case(lambda: dict(vars(helper)))
def attributes_of_a_function(model: Any, x: torch.Tensor) -> None:
    helper(3)


def _closure() -> tuple[Callable[[Any], None], Callable[[], Any]]:
    count, last = 0, None

    def bump(x: Any) -> None:
        nonlocal count, last
        count, last = count + 1, x

    return bump, lambda: (count, last)


BUMP, BUMPED = _closure()


@case(lambda: BUMPED())
def variables_around_a_function(model: Any, x: torch.Tensor) -> None:
    BUMP(x)


class Configuration:
    def __init__(self) -> None:
        self.steps = 0


class Outer:
    settings = Configuration()

    class Inner:
        seen: list[Any] = []

    @staticmethod
    def go(x: Any) -> None:
        Outer.Inner.seen.append(x)
        Outer.settings.steps += 1


@case(lambda: (list(Outer.Inner.seen), Outer.settings.steps))
def classes_in_classes_and_objects_on_them(model: Any, x: torch.Tensor) -> None:
    Outer.go(x)


# ---------------------------------------------------------------------------------------------------------------- objects

NAMESPACE = types.SimpleNamespace(n=0)
CHAIN: Any = collections.ChainMap({})
USER_LIST: Any = collections.UserList()
QUEUE: Any = queue.Queue()
BYTES, NUMBERS = bytearray(b"abc"), array.array("i", [1])
TEXT, BINARY = io.StringIO("abc"), io.BytesIO(b"abc")
OBJECTS = np.array([1, None], dtype=object)


def _held_in_containers() -> Any:
    containers = (USER_LIST, QUEUE.queue, BYTES, NUMBERS, OBJECTS)
    return dict(vars(NAMESPACE)), dict(CHAIN), [list(c) for c in containers], TEXT.getvalue(), TEXT.tell(), BINARY.getvalue()


@case(_held_in_containers)
def containers_of_the_standard_library(model: Any, x: torch.Tensor) -> None:
    NAMESPACE.n, NAMESPACE.x = 1, x
    CHAIN["a"] = x
    USER_LIST.append(1)
    QUEUE.put(1)
    BYTES.extend(b"z")
    NUMBERS.append(2)
    OBJECTS[1] = "x"
    TEXT.write("xyzz")
    BINARY.write(b"xyzz")


KEYS, VALUES, SET = weakref.WeakKeyDictionary[Any, Any](), weakref.WeakValueDictionary[Any, Any](), weakref.WeakSet[Any]()
KEY = Configuration()
KEYS[KEY] = 1


@case(lambda: (dict(KEYS), dict(VALUES), list(SET)))
def weak_containers(model: Any, x: torch.Tensor) -> None:
    KEYS[model], KEYS[KEY] = x, 2
    VALUES["layer"] = model.layer
    SET.add(model.layer)


class Base:
    __slots__ = ("a",)


class Sub(Base):
    __slots__ = ("b",)

    def __getattr__(self, name: str) -> Any:
        ASKED.append(name)
        raise AttributeError(name)


SLOTTED = Sub()
ASKED: list[str] = []


@case(lambda: [[m.__get__(SLOTTED) for m in (Base.a, Sub.b) if hasattr(SLOTTED, m.__name__)], ASKED.clear()])  # type: ignore[attr-defined]  # slots
def slots_of_which_none_is_filled(model: Any, x: torch.Tensor) -> None:
    SLOTTED.a, SLOTTED.b = 1, x  # type: ignore[attr-defined]  # slots


class Careful(list[Any]):
    """A container that notices how it is used."""

    uses = 0

    def append(self, item: Any) -> None:
        self.uses += 1
        super().append(item)

    copy = __setitem__ = __iter__ = clear = extend = None  # type: ignore[assignment]  # not to be called


CAREFUL = Careful([1])


@case(lambda: (CAREFUL.uses, len(CAREFUL)))
def a_container_with_methods_of_its_own(model: Any, x: torch.Tensor) -> None:
    CAREFUL.append(x)


VARIABLE, UNSET = contextvars.ContextVar[Any]("VARIABLE"), contextvars.ContextVar[Any]("UNSET")
VARIABLE.set([0])
LOCAL: Any = threading.local()
LOCAL.n = 0


@case(lambda: (VARIABLE.get(), list(VARIABLE.get()), UNSET.get(None), dict(vars(LOCAL))))
def variables_of_contexts_and_threads(model: Any, x: torch.Tensor) -> None:
    VARIABLE.get().append(1)
    VARIABLE.set([2])
    UNSET.set(x)
    LOCAL.n, LOCAL.x = 1, x


COUNT, ITERATOR = itertools.count(5), iter([1, 2, 3])


@case(lambda: (repr(COUNT), ITERATOR.__length_hint__(), COUNT is globals()["COUNT"]))  # type: ignore[attr-defined]  # of a list
def counters_and_iterators_of_containers(model: Any, x: torch.Tensor) -> None:
    next(COUNT), next(ITERATOR)


DRAWS: Any = (np.random.default_rng(0), np.random.RandomState(0), np.random.PCG64(0), {"python": random.Random(0)})


@case(lambda: (str(DRAWS[0].bit_generator.state), str(DRAWS[1].get_state()), str(DRAWS[2].state), DRAWS[3]["python"].getstate()))
def random_generators(model: Any, x: torch.Tensor) -> None:
    DRAWS[0].random(), DRAWS[1].rand(), DRAWS[2].random_raw(), DRAWS[3]["python"].random()


LOGGER = logging.getLogger("tests.undo")


@case(lambda: (LOGGER.level, list(LOGGER.filters), list(LOGGER.handlers), LOGGER.propagate))
def loggers(model: Any, x: torch.Tensor) -> None:
    LOGGER.setLevel(10)
    LOGGER.addFilter(len)  # type: ignore[arg-type]  # never asked
    LOGGER.propagate = False


MODEL: list[Any] = []


@case(lambda: [dict(vars(MODEL[0].layer.weight)), list(MODEL[0].layer.weight.seen)] if MODEL else None)
def attributes_of_a_parameter(model: Any, x: torch.Tensor) -> None:
    model.layer.weight.mark = x
    model.layer.weight.seen.append(1)


# ---------------------------------------------------------------------------------------------------------------- torch and Python


def _torch_flags() -> Any:
    backends = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cuda.flash_sdp_enabled()
    return (
        torch.get_float32_matmul_precision(),
        dict(vars(torch._tensor_str.PRINT_OPTS)),
        torch.is_warn_always_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]  # torch annotates it in a class
        backends,
    )


@case(_torch_flags)
def flags_of_torch(model: Any, x: torch.Tensor) -> None:
    torch.set_float32_matmul_precision("medium")
    torch.set_printoptions(precision=2)
    torch.set_warn_always(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch._C._set_cudnn_benchmark(True)  # type: ignore[attr-defined]  # its property refuses once torch's own test utilities are imported
    torch._C._set_cudnn_deterministic(True)  # type: ignore[attr-defined]  # as above
    torch.backends.cuda.enable_flash_sdp(False)


class Passing(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _stacks() -> Any:
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack(), hooks, len(nn.modules.module._global_forward_hooks)


@case(_stacks)
def modes_that_are_not_left(model: Any, x: torch.Tensor) -> None:
    Passing().__enter__()
    torch.set_default_device("cpu")  # a function mode too, the outermost
    torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t).__enter__()
    nn.modules.module.register_module_forward_hook(lambda *_: None)


def _interpreter() -> Any:
    settings = gc.isenabled(), gc.get_threshold(), sys.getswitchinterval(), sys.getprofile(), sys.excepthook
    return sorted(os.environ.items()), list(sys.argv), os.getcwd(), decimal.getcontext().prec, np.geterr(), settings


@case(_interpreter)
def the_interpreter(model: Any, x: torch.Tensor) -> None:
    os.environ["MADE_BY_THE_FORWARD"] = "1"
    del os.environ["PATH"]
    sys.argv.append("more")
    os.chdir("/")
    decimal.getcontext().prec = 5
    np.seterr(all="raise")
    gc.disable()
    gc.set_threshold(5)
    sys.setswitchinterval(0.1)
    sys.setprofile(lambda *_: None)
    sys.excepthook = print


def _signals() -> Any:
    return signal.getsignal(signal.SIGUSR1), [signal.getitimer(timer)[0] > 0 for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF)]


@case(_signals)
def signals_and_alarms(model: Any, x: torch.Tensor) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    signal.setitimer(signal.ITIMER_PROF, 1000, 5)


def _umask() -> int:
    before = os.umask(0o022)
    os.umask(before)
    return before


def _system() -> Any:
    locales = locale.setlocale(locale.LC_ALL), time.tzname
    return _umask(), locales, socket.getdefaulttimeout(), threading.stack_size(), sys.get_int_max_str_digits(), faulthandler.is_enabled()


@case(_system)
def the_system(model: Any, x: torch.Tensor) -> None:
    os.umask(0o077)
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) != "C.UTF-8" else "C")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    socket.setdefaulttimeout(3)
    threading.stack_size(2**20)
    sys.set_int_max_str_digits(5000)


ROOT_HANDLER = logging.NullHandler()


def _logging() -> Any:
    root, app = logging.root, logging.getLogger("app.of.the.user")
    handlers = list(root.handlers), ROOT_HANDLER.level, ROOT_HANDLER.formatter, list(ROOT_HANDLER.filters)
    return root.level, handlers, root.manager.disable, app.level, app.disabled, logging.raiseExceptions, logging.getLoggerClass()


@case(_logging)
def logging_as_a_whole(model: Any, x: torch.Tensor) -> None:
    logging.basicConfig(level=10, force=True)
    ROOT_HANDLER.setLevel(40)
    ROOT_HANDLER.setFormatter(logging.Formatter("%(message)s"))
    logging.disable(10)
    logging.getLogger("app.of.the.user").setLevel(10)
    logging.raiseExceptions = False
    logging.setLoggerClass(type("Mine", (logging.Logger,), {}))
    logging.captureWarnings(True)


def _hooks() -> Any:
    streams = sys.stdout, print, list(warnings.filters), warnings.formatwarning
    return threading.excepthook, sys.unraisablehook, threading.gettrace(), getattr(sys, "tracebacklimit", None), streams


@case(_hooks)
def hooks_and_streams(model: Any, x: torch.Tensor) -> None:
    threading.excepthook = sys.unraisablehook = sys.breakpointhook = lambda *_: None
    warnings.formatwarning = lambda *_, **__: ""
    warnings.simplefilter("error")
    sys.stdout = io.StringIO()
    builtins.print = lambda *_, **__: None
    threading.settrace(lambda *_: None)
    sys.tracebacklimit = 1


def _use(name: str, model: nn.Module, x: torch.Tensor) -> None:
    uses: dict[str, Callable[[], Any]] = {
        "real": lambda: fxgrad.analyze(model, (x,), options=Options(values="real")),
        "fake": lambda: fxgrad.analyze(model, (x,), options=Options(values="fake")),
        "fix": lambda: fxgrad.fix(model, (x,)),
        "raises": lambda: fxgrad.analyze(model, (x,), loss=_raises),
    }
    uses[name]()


def _raises(out: torch.Tensor) -> torch.Tensor:
    raise KeyError("the loss")


@pytest.mark.parametrize("use", ["real", "fake", "fix", "raises"])
@pytest.mark.parametrize("name", CASES)
def test_as_before(name: str, use: str) -> None:
    act, picture = CASES[name]
    model = Model(act)
    model.layer.weight.seen = []  # type: ignore[attr-defined]  # an attribute on a parameter
    MODEL[:] = [model]
    before = picture()
    _use(use, model, torch.randn(3, 4))
    after = picture()
    MODEL.clear()
    assert _same(before, after), (before, after)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a is b or (type(a) is type(b) and not isinstance(a, torch.Tensor) and bool(a == b))


# ---------------------------------------------------------------------------------------------------------------- modules and packages

HELPERS = """
import torch
NONE, EMPTY, FULL, ONCE = None, {}, {"a": 1}, False

class Registry:
    last = None

def mask(n):
    global NONE, ONCE
    ONCE = True
    Registry.last = NONE = {n: torch.ones(n, 1)}
    EMPTY[n] = FULL[n] = torch.ones(n, 1)
    return FULL[n]

class Plain:
    def __init__(self):
        self.n = 0
"""

MAIN = """
import resnet_helpers, site_helpers.inner
from resnet_helpers import Plain
PLAIN = Plain()

def forward(x):
    from site_helpers import inner
    import resnet_helpers as local
    PLAIN.n += 1
    local.ASSIGNED = x
    return layer(x) * resnet_helpers.mask(3) * local.mask(3) * site_helpers.inner.mask(3) * inner.mask(3)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Functions typed in, with a module of the user's and an installed package beside them."""
    packages = tmp_path / "site-packages"
    (packages / "site_helpers").mkdir(parents=True)
    (packages / "site_helpers" / "__init__.py").write_text("from . import inner\n")
    (packages / "site_helpers" / "inner.py").write_text(HELPERS)
    (tmp_path / "resnet_helpers.py").write_text(HELPERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(packages))
    scope: dict[str, Any] = {"layer": nn.Linear(4, 4)}  # no `__name__`: its classes would be of module `builtins`
    exec(MAIN, scope)
    yield scope
    for name in ("resnet_helpers", "site_helpers", "site_helpers.inner"):
        del sys.modules[name]


@pytest.mark.parametrize("values", ["real", "fake"])
def test_modules_of_the_user_and_installed_ones(program: dict[str, Any], values: Any) -> None:
    own, installed = sys.modules["resnet_helpers"], sys.modules["site_helpers.inner"]
    fxgrad.analyze(program["forward"], (torch.randn(3, 4),), options=Options(values=values))
    assert program["PLAIN"].n == 0
    for module in (own, installed):
        assert (module.NONE, module.EMPTY, module.FULL, module.Registry.last) == (None, {}, {"a": 1}, None)
    assert not hasattr(own, "ASSIGNED")
    assert (own.ONCE, installed.ONCE) == (False, True)  # of an installed package a flag stays: it may say what C has been told


@pytest.mark.parametrize("values", ["real", "fake"])
def test_a_model_typed_into_a_namespace_without_a_name(values: Any) -> None:
    scope: dict[str, Any] = {}
    text = """
import torch
class Net(torch.nn.Module):
    calls = []
    def __init__(self):
        super().__init__()
        self.layer, self.plain = torch.nn.Linear(4, 4), Plain()
    def forward(self, x):
        global N
        N = self.plain.n = 1
        self.calls.append(x)
        return self.layer(x)
class Plain:
    n = 0
N = 0
"""
    exec(text, scope)
    model = scope["Net"]()
    assert fxgrad.analyze(model, (torch.randn(3, 4),), options=Options(values=values)).ok
    assert (scope["N"], vars(model.plain), model.calls) == (0, {}, [])


def test_a_submodule_that_the_forward_imports_stays_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_package").mkdir()
    (tmp_path / "late_package" / "__init__.py").write_text("")
    (tmp_path / "late_package" / "part.py").write_text("SCALE = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    package = importlib.import_module("late_package")
    layer = nn.Linear(4, 4)

    def forward(x: torch.Tensor) -> torch.Tensor:
        importlib.import_module("late_package.part")
        return layer(x) * package.part.SCALE  # type: ignore[no-any-return, attr-defined]  # imported a line before

    assert fxgrad.analyze(forward, (torch.randn(3, 4),)).ok
    assert importlib.import_module("late_package.part") is package.part


# ---------------------------------------------------------------------------------------------------------------- the user's tensors


def test_a_repair_leaves_version_counters_and_hooks() -> None:
    """A graph that waits for its backward compares the counters; a hook of the proof would run in every later step."""

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.register_buffer("scale", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.layer.weight.register_hook(lambda grad: grad)
            self.layer.bias.register_post_accumulate_grad_hook(lambda parameter: None)
            self.scale.mul_(1)  # type: ignore[operator]  # a buffer
            return self.norm(self.layer(x)) * self.scale

    model, x = Program(), torch.randn(3, 4)
    kept = lambda grad: grad  # noqa: E731  one object to be found again
    model.norm.weight.register_hook(kept)  # type: ignore[no-untyped-call]  # torch's
    waiting = (model.scale * model.layer.weight).exp().sum()  # type: ignore[operator]  # a buffer
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {n: (t._version, list((t._backward_hooks or {}).values())) for n, t in tensors.items()}
    module = fxgrad.fix(model, (x,)).module
    fxgrad.benchmark(model, module, (x,), runs=1)
    assert {n: (t._version, list((t._backward_hooks or {}).values())) for n, t in tensors.items()} == before
    assert list((model.norm.weight._backward_hooks or {}).values()) == [kept]
    assert model.layer.bias._post_accumulate_grad_hooks is None
    waiting.backward()  # type: ignore[no-untyped-call]  # torch's


# ---------------------------------------------------------------------------------------------------------------- queues and threads


def test_a_timer_of_the_users_goes_on() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        signal.alarm(0)
        return x * 2

    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 500, 7)
        fxgrad.analyze(forward, (torch.randn(3, 4, requires_grad=True),))
        left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interval == 7
    assert 400 < left < 500


class Taking(nn.Module):
    """Takes a number from a queue and puts another one in."""

    def __init__(self, numbers: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.queue = numbers
        for number in (3.0, 1.0, 2.0):
            numbers.put(number)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = self.queue.get()
        self.queue.task_done()
        self.queue.put(5.0)
        return self.layer(x) * factor


@pytest.mark.parametrize("make", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_a_queue_is_as_before_while_other_threads_live(make: type[queue.Queue[Any]]) -> None:
    asleep = threading.Event()
    other = threading.Thread(target=asleep.wait, daemon=True)
    other.start()
    model = Taking(make())
    before = list(model.queue.queue), model.queue.unfinished_tasks, set(vars(model.queue))
    fxgrad.analyze(model, (torch.randn(3, 4),))
    assert (list(model.queue.queue), model.queue.unfinished_tasks, set(vars(model.queue))) == before
    asleep.set()
    other.join()


def test_what_a_worker_takes_and_puts_meanwhile_is_its_own() -> None:
    """The worker was there before: the jobs that it has done are not done again, its results stay."""
    jobs: queue.Queue[Any] = queue.Queue()
    results: queue.Queue[Any] = queue.Queue()
    begin, ended = threading.Event(), threading.Event()

    def work() -> None:
        begin.wait()
        for _ in range(2):
            results.put(jobs.get() * 10)
            jobs.task_done()
        ended.set()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    for job in (1, 2, 3):
        jobs.put(job)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if not ended.is_set():
            begin.set()
            ended.wait()
        return x * jobs.get() * results.get()

    fxgrad.analyze(forward, (torch.randn(3, 4, requires_grad=True),))
    worker.join()
    assert (list(jobs.queue), jobs.unfinished_tasks, list(results.queue)) == ([3], 1, [10, 20])


def test_no_thread_is_left_where_a_bar_of_progress_would_start_one(tmp_path: Path) -> None:
    """tqdm, as far as `torch.fx` asks for it: a bar starts a thread, even one that is not shown."""
    bar = "import threading, time\nclass tqdm:\n    def __init__(self, *a, **k): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    (tmp_path / "tqdm").mkdir()
    (tmp_path / "tqdm" / "__init__.py").write_text(bar + "    def update(self, n): pass\n")
    text = "import threading, torch, fxgrad\nfxgrad.fix(torch.nn.Linear(2, 2), (torch.ones(1, 2),))\nprint(threading.active_count())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["1"]


# ---------------------------------------------------------------------------------------------------------------- Ctrl-C


class Slow:
    """An object of the user's whose putting back is interrupted."""


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler: what a shell starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("place", ["while all is put back", "while torch is intercepted"])
def test_an_interrupt_waits_until_the_world_is_whole(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def interrupted(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            seen.append(1)
            return original(*args, **kwargs)

        return call

    if place == "while all is put back":
        monkeypatch.setattr(reach.Reach, "restore", interrupted(reach.Reach.restore))
    else:
        monkeypatch.setattr(regions, "interceptions", interrupted(regions.interceptions))
    model = Model(CASES["globals_made_and_filled"][0])
    handler, calls = signal.getsignal(signal.SIGINT), (nn.Linear._call_impl, torch.manual_seed)
    with pytest.raises(KeyboardInterrupt):
        fxgrad.analyze(model, (torch.randn(3, 4),))
    assert seen
    assert (LAZY, "MADE" in globals()) == (None, False)
    assert (signal.getsignal(signal.SIGINT), (nn.Linear._call_impl, torch.manual_seed)) == (handler, calls)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_in_the_forward_comes_at_once() -> None:
    reached: list[int] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        with contextlib.suppress(ZeroDivisionError):
            signal.raise_signal(signal.SIGINT)
        reached.append(1)
        return x

    with pytest.raises(KeyboardInterrupt):
        fxgrad.analyze(forward, (torch.randn(3, 4, requires_grad=True),))
    assert reached == []


def test_what_cannot_be_put_back_keeps_nothing_else_from_it() -> None:
    array = np.zeros(2)
    kept: list[int] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        array[:] = 1
        array.flags.writeable = False
        kept.append(1)
        return x * 2

    with warnings.catch_warnings(), pytest.raises(ValueError, match="read-only"):
        fxgrad.analyze(forward, (torch.randn(3, 4, requires_grad=True),))
    assert kept == []
