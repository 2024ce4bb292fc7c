"""Static look-ups: each test writes a file, asks for sites and compares the very text the spans cover."""

from __future__ import annotations

import ast
import functools
import importlib.util
import linecache
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from fxgrad import source
from fxgrad.records import Site

Write = Callable[..., str]
Import = Callable[..., ModuleType]

IMPORTS = "import torch\nimport torch.nn as nn\n"
LAYER = "class Layer(nn.Module):\n    def forward(self, x): return x\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a dedented text to a file of its own; returns the path."""

    def write_file(text: str, name: str = "model.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return str(path)

    return write_file


@pytest.fixture
def load(write: Write, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Write a text after the usual imports and import it."""

    def load_file(text: str, name: str = "model.py") -> ModuleType:
        path = write(IMPORTS + textwrap.dedent(text), name)
        title = "fxgrad_test_" + Path(name).stem
        spec = importlib.util.spec_from_file_location(title, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, title, module)
        spec.loader.exec_module(module)
        return module

    return load_file


def text_of(site: Site) -> str:
    """The characters a site covers; continuation lines are stripped and joined by one space."""
    lines = [source.line_text(site.file, line) for line in range(site.line, site.end_line + 1)]
    lines[-1] = lines[-1][: site.end_column - 1]
    lines[0] = lines[0][site.column - 1 :]
    return " ".join(line.strip() for line in lines)


def texts(sites: Iterable[Site]) -> list[str]:
    return [text_of(site) for site in sites]


def text_or_none(site: Site | None) -> str | None:
    return None if site is None else text_of(site)


def line_with(file: str, words: str) -> int:
    """The number of the only line that contains the words."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if words in line]
    assert len(found) == 1
    return found[0]


# Files


def test_line_text(write: Write) -> None:
    file = write("a = 1\nb = 'ä'\n")
    assert [source.line_text(file, line) for line in (0, 1, 2, 9)] == ["", "a = 1", "b = 'ä'", ""]


def test_line_text_counts_lines_as_the_interpreter_does(write: Write) -> None:
    file = write("a = '\u2028'\n\x0cb = 2\n")
    assert source.line_text(file, 2) == "\x0cb = 2"


def test_parsed_is_cached(write: Write) -> None:
    file = write("a = 1\n")
    assert source.parsed(file) is source.parsed(file)


def test_parsed_sees_a_change(write: Write) -> None:
    file = write("a = 1\n")
    before = source.parsed(file)
    write("a = 2\n")
    os.utime(file, ns=(1, 1))
    after = source.parsed(file)
    assert before is not None
    assert after is not None
    assert [ast.unparse(before), ast.unparse(after)] == ["a = 1", "a = 2"]


def test_parsed_broken_file_is_none_and_its_lines_are_there(write: Write) -> None:
    file = write("def f(:\n")
    assert (source.parsed(file), source.line_text(file, 1)) == (None, "def f(:")


# Not "<string>": Python 3.13 knows the text of a process that was started by `python -c` under that name.
@pytest.mark.parametrize("file", ["", "missing.py", "<nowhere>", "nul\0l.py", ".", "/dev/null"])
def test_parsed_unreadable_file_is_none(file: str) -> None:
    assert source.parsed(file) is None


def test_parsed_undecodable_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"a = '\xe4'\n")
    assert source.parsed(str(tmp_path / "latin.py")) is None


def test_parsed_obeys_the_coding_comment(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\na = '\xe4'; torch.set_grad_enabled(False)\n")
    (site,) = source.grad_off_sites([str(tmp_path / "latin.py")])
    assert (site.column, text_of(site)) == (10, "torch.set_grad_enabled(False)")


def test_parsed_does_not_warn_about_the_users_escapes(write: Write) -> None:
    file = write("a = '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert source.parsed(file) is not None


def test_parsed_reads_notebook_cells_from_linecache(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "<ipython-input-7-abc>"
    text = "import torch\ntorch.set_grad_enabled(False)\n"
    monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(True), name))
    assert [(site.file, site.line) for site in source.grad_off_sites([name])] == [(name, 2)]


# Spans


def test_site_columns_count_characters_not_bytes(write: Write) -> None:
    file = write("größe = 'ß'; p.requires_grad = False\n")
    assert source.freeze_sites([file]) == (Site(file, 1, 14, 1, 37, "<module>"),)


def test_site_columns_count_a_tab_as_one(write: Write) -> None:
    file = write("def f(p):\n\tp.requires_grad = False\n")
    assert source.freeze_sites([file]) == (Site(file, 2, 2, 2, 25, "f"),)


def test_site_spans_many_lines(write: Write) -> None:
    file = write("p.requires_grad = (\n    flag\n)\n")
    assert source.freeze_sites([file]) == (Site(file, 1, 1, 3, 2, "<module>"),)


def test_site_function_is_the_code_objects_qualified_name(write: Write) -> None:
    file = write(
        """
        class A:
            class B:
                async def f(self):
                    def g(p):
                        p.requires_grad = False
                    return lambda p: p.requires_grad_(False)
        """
    )
    assert [site.function for site in source.freeze_sites([file])] == ["A.B.f.<locals>.g", "A.B.f.<locals>.<lambda>"]


# files_of


def names_of(files: Iterable[str]) -> list[str]:
    return [Path(file).name for file in files]


def test_files_of_a_module_are_those_of_its_submodules(load: Import) -> None:
    base = load(LAYER.replace("Layer", "Base"), "base.py")
    inner = load(LAYER.replace("Layer", "Inner"), "inner.py")
    outer = load(LAYER.replace("Layer", "Outer"), "outer.py").Outer()
    outer.sub = nn.Sequential(nn.Linear(1, 1), inner.Inner(), base.Base())
    assert names_of(source.files_of(outer)) == ["outer.py", "inner.py", "base.py"]


def test_files_of_a_module_are_those_of_its_base_classes(load: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load(LAYER.replace("Layer", "Base"), "base.py")
    monkeypatch.setitem(sys.modules, "base_of_model", base)
    model = load("from base_of_model import Base\nclass M(Base):\n    def extra(self): pass\n").M()
    assert names_of(source.files_of(model)) == ["model.py", "base.py"]


def test_files_of_sees_modules_in_plain_lists(load: Import) -> None:
    inner = load(LAYER.replace("Layer", "Inner"), "inner.py")
    model = nn.Linear(1, 1)
    model.extra = {"a": [inner.Inner()]}
    assert names_of(source.files_of(model)) == ["inner.py"]


def test_files_of_a_module_with_a_replaced_forward(load: Import) -> None:
    other = load("def forward(x): return x\n", "other.py")
    model = nn.Linear(1, 1)
    model.forward = other.forward
    assert names_of(source.files_of(model)) == ["other.py"]


def test_files_of_a_decorated_method_is_the_users_file(load: Import) -> None:
    module = load("class M(nn.Module):\n    @torch.no_grad()\n    def forward(self, x): return x\n")
    assert names_of(source.files_of(module.M().forward)) == ["model.py"]


def test_files_of_a_class_whose_module_is_not_in_sys_modules(load: Import) -> None:
    module = load("class M(nn.Module):\n    def forward(self, x): return x\n")
    del sys.modules[module.__name__]
    assert names_of(source.files_of(module.M())) == ["model.py"]


def test_files_of_a_closure_and_what_it_closes_over(load: Import) -> None:
    deep = load("def deep(x): return x\n", "deep.py")
    outer = load("def make(f):\n    return lambda x: f(x)\n", "outer.py")
    assert names_of(source.files_of(outer.make(deep.deep))) == ["outer.py", "deep.py"]


def test_files_of_a_partial(load: Import) -> None:
    deep = load("def deep(x): return x\n", "deep.py")
    outer = load("def call(f, g, x): return f(g(x))\n", "outer.py")
    assert names_of(source.files_of(functools.partial(outer.call, torch.relu, g=deep.deep))) == ["outer.py", "deep.py"]


def test_files_of_a_callable_object_and_the_modules_it_holds(load: Import) -> None:
    inner = load(LAYER.replace("Layer", "Inner"), "inner.py")
    loss = load("class Loss:\n    def __call__(self, x): return self.net(x)\n", "outer.py").Loss()
    loss.net = inner.Inner()
    assert names_of(source.files_of(loss)) == ["outer.py", "inner.py"]


def test_files_of_a_variable_not_yet_assigned(load: Import) -> None:
    module = load("def make():\n    def f(): return later\n    return f\n    later = 1\n")
    assert names_of(source.files_of(module.make())) == ["model.py"]


def test_files_of_leaves_out_torch_fxgrad_and_the_standard_library() -> None:
    objects = (nn.Linear(1, 1), torch.relu, functools.wraps, source.files_of, SimpleNamespace(a=1), None, 3)
    assert source.files_of(*objects) == ()


def test_files_of_leaves_out_generated_code() -> None:
    assert source.files_of(torch.fx.symbolic_trace(nn.Linear(1, 1))) == ()


def test_files_of_puts_installed_packages_last(load: Import) -> None:
    library = load("def g(x): return x\n", "site-packages/library.py")
    own = load("def f(x): return x\n", "own.py")
    assert names_of(source.files_of(library.g, own.f)) == ["own.py", "library.py"]


def test_files_of_ends_on_cycles(load: Import) -> None:
    module = load("class M(nn.Module):\n    def forward(self, x): return x\n")
    model = module.M()
    model.__dict__["parent"] = [model]
    assert names_of(source.files_of(model)) == ["model.py"]


# attribute_site

MODEL = """
class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.inherited = nn.Linear(1, 1)

class Model(Base):
    declared: int = 3
    def rebuild(self):
        self.late = nn.Linear(2, 2)
        self.twice = nn.Linear(2, 2)
        self.empty = nn.Linear(2, 2)
    def __init__(self):
        super().__init__()
        self.one, (self.two, *self.rest) = nn.Linear(1, 1), (nn.Linear(2, 2), 3)
        self.twice = nn.Linear(1, 1)
        self.empty = None
        self.annotated: nn.Module = nn.Linear(1, 1)
        setattr(self, "set", nn.Linear(1, 1))
        for i in range(2):
            setattr(self, f"fc{i}", nn.Linear(1, 1))
            self.add_module("head%d" % i, nn.Linear(1, 1))
        self.register_buffer(name="mask", tensor=torch.ones(1))
        super().register_parameter("scale", nn.Parameter(torch.ones(1)))
        self.__dict__["hidden"] = 1
        if self.declared > 3:
            self.picked = nn.Conv2d(1, 1, 1)
        else:
            self.picked = nn.Linear(1, 1)
        self.summed = 1
        self.summed += 1

class Other(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.foreign = 1
        model.outside = nn.Linear(9, 9)
"""


@pytest.mark.parametrize(
    ("attribute", "want"),
    [
        ("inherited", "self.inherited = nn.Linear(1, 1)"),
        ("declared", "declared: int = 3"),
        ("one", "self.one, (self.two, *self.rest) = nn.Linear(1, 1), (nn.Linear(2, 2), 3)"),
        ("two", "self.one, (self.two, *self.rest) = nn.Linear(1, 1), (nn.Linear(2, 2), 3)"),
        ("rest", "self.one, (self.two, *self.rest) = nn.Linear(1, 1), (nn.Linear(2, 2), 3)"),
        ("late", "self.late = nn.Linear(2, 2)"),
        ("twice", "self.twice = nn.Linear(1, 1)"),
        ("empty", "self.empty = nn.Linear(2, 2)"),
        ("annotated", "self.annotated: nn.Module = nn.Linear(1, 1)"),
        ("set", 'setattr(self, "set", nn.Linear(1, 1))'),
        ("fc1", 'setattr(self, f"fc{i}", nn.Linear(1, 1))'),
        ("head0", 'self.add_module("head%d" % i, nn.Linear(1, 1))'),
        ("mask", 'self.register_buffer(name="mask", tensor=torch.ones(1))'),
        ("scale", 'super().register_parameter("scale", nn.Parameter(torch.ones(1)))'),
        ("hidden", 'self.__dict__["hidden"] = 1'),
        ("picked", "self.picked = nn.Linear(1, 1)"),
        ("summed", "self.summed = 1"),
        ("foreign", None),
        ("missing", None),
    ],
)
def test_attribute_site(load: Import, attribute: str, want: str | None) -> None:
    module = load(MODEL)
    assert text_or_none(source.attribute_site(module.Model(), attribute, [module.__file__])) == want


def test_attribute_site_prefers_the_nearest_class(load: Import) -> None:
    module = load(
        """
        class Base(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(1, 1)
        class Model(Base):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(2, 2)
        """
    )
    want = ["self.fc = nn.Linear(2, 2)", "self.fc = nn.Linear(1, 1)"]
    assert texts(source.attribute_sites(module.Model(), "fc")) == want


def test_attribute_site_from_outside_the_class(load: Import) -> None:
    module = load(MODEL)
    got = source.attribute_site(module.Model(), "outside", [module.__file__])
    assert text_or_none(got) == "model.outside = nn.Linear(9, 9)"


def test_attribute_site_of_a_torch_module_is_found_outside_only(load: Import) -> None:
    module = load("net = nn.Sequential(nn.Tanh())\nnet[0] = nn.Linear(2, 2)\nnet[0].bias = None\n")
    files = [module.__file__]
    got = [source.attribute_site(module.net, "0", files), source.attribute_site(module.net[0], "bias", files)]
    assert [text_or_none(site) for site in got] == ["net[0] = nn.Linear(2, 2)", "net[0].bias = None"]


def test_attribute_site_item_assignment_is_no_attribute(load: Import) -> None:
    module = load("class M(nn.Module): pass\ncache = {}\ncache['fc'] = 1\n")
    assert source.attribute_site(module.M(), "fc", [module.__file__]) is None


def test_attribute_site_of_a_class_among_namesakes(load: Import) -> None:
    module = load(
        """
        def make(flag):
            if flag:
                class M(nn.Module):
                    def __init__(self):
                        super().__init__()
                        self.fc = 1
            else:
                class M(nn.Module):
                    def __init__(self):
                        super().__init__()
                        self.fc = 2
            return M()
        """
    )
    got = [source.attribute_site(module.make(flag), "fc") for flag in (True, False)]
    assert [text_or_none(site) for site in got] == ["self.fc = 1", "self.fc = 2"]


def test_attribute_site_ignores_the_self_of_a_nested_class(load: Import) -> None:
    module = load(
        """
        class M(nn.Module):
            def __init__(self):
                super().__init__()
                class Inner:
                    def __init__(self):
                        self.fc = 1
        """
    )
    assert source.attribute_site(module.M(), "fc") is None


def test_attribute_site_self_may_have_any_name(load: Import) -> None:
    module = load("class M(nn.Module):\n    def build(this):\n        def inner():\n            this.fc = 1\n")
    assert text_or_none(source.attribute_site(module.M(), "fc")) == "this.fc = 1"


def test_attribute_site_binding_by_with_and_for(load: Import) -> None:
    module = load(
        """
        class M(nn.Module):
            def forward(self, x):
                with open(x) as self.stream:
                    pass
                for self.step in x:
                    pass
        """
    )
    got = [source.attribute_site(module.M(), name) for name in ("stream", "step")]
    assert [text_or_none(site) for site in got] == ["open(x) as self.stream", "self.step"]


def test_attribute_site_a_computed_name_is_the_last_resort(load: Import) -> None:
    module = load(
        """
        class M(nn.Module):
            def __init__(self, **settings):
                super().__init__()
                for key, value in settings.items():
                    setattr(self, key, value)
                self.fc = None
        """
    )
    got = [source.attribute_site(module.M(), name) for name in ("fc", "depth")]
    assert [text_or_none(site) for site in got] == ["self.fc = None", "setattr(self, key, value)"]


def test_attribute_site_the_call_that_gives_the_name_comes_before_the_method_that_takes_it(load: Import) -> None:
    module = load(
        """
        class M(nn.Module):
            def __init__(self):
                super().__init__()
                self.add("one", nn.Linear(1, 1))
            def add(self, name, module):
                setattr(self, name, module)
            def put(self, module, name):
                self.add_module(name, module)
        class Other:
            def use(self):
                self.add("three", 3)
        m = M()
        m.add("two", nn.Linear(2, 2))
        m.put(nn.Linear(3, 3), name="last")
        for name in ("three", "four"):
            m.add(name, nn.Linear(4, 4))
        """
    )
    got = [source.attribute_site(module.m, name, [module.__file__]) for name in ("one", "two", "last", "three")]
    assert [text_or_none(site) for site in got] == [
        'self.add("one", nn.Linear(1, 1))',
        'm.add("two", nn.Linear(2, 2))',
        'm.put(nn.Linear(3, 3), name="last")',
        "setattr(self, name, module)",
    ]


def test_attribute_sites_lists_reassignments(load: Import) -> None:
    module = load(MODEL)
    got = texts(source.attribute_sites(module.Model(), "empty"))
    assert got == ["self.empty = nn.Linear(2, 2)", "self.empty = None"]


# container_sites


def test_container_sites_fills_come_before_the_assignment(load: Import) -> None:
    module = load(
        """
        class M(nn.Module):
            def __init__(self):
                super().__init__()
                self.hids = []
                for _ in range(2):
                    self.hids.append([nn.Linear(1, 1), nn.Tanh()])
                self.hids[0] += [nn.ReLU()]
        """
    )
    want = ["self.hids.append([nn.Linear(1, 1), nn.Tanh()])", "self.hids[0] += [nn.ReLU()]", "self.hids = []"]
    assert texts(source.container_sites(module.M(), "hids")) == want


def test_container_sites_of_a_dict(load: Import) -> None:
    module = load(
        """
        class M(nn.Module):
            def __init__(self):
                super().__init__()
                self.d = {}
                self.d["a"] = nn.Linear(1, 1)
                self.d.setdefault("b", []).append(nn.Linear(2, 2))
                self.d.update(c=nn.Linear(3, 3))
        """
    )
    want = [
        'self.d["a"] = nn.Linear(1, 1)',
        'self.d.setdefault("b", []).append(nn.Linear(2, 2))',
        'self.d.setdefault("b", [])',
        "self.d.update(c=nn.Linear(3, 3))",
        "self.d = {}",
    ]
    assert texts(source.container_sites(module.M(), "d")) == want


@pytest.mark.parametrize("value", ["[nn.Linear(1, 1) for _ in 'ab']", "{k: nn.Tanh() for k in 'ab'}", "[nn.Tanh()]"])
def test_container_sites_an_assignment_that_builds_the_layers(load: Import, value: str) -> None:
    module = load(f"class M(nn.Module):\n    def build(self):\n        self.hids = {value}\n")
    assert texts(source.container_sites(module.M(), "hids")) == [f"self.hids = {value}"]


def test_container_sites_through_a_local_list(load: Import) -> None:
    module = load(
        """
        class M(nn.Module):
            def __init__(self):
                super().__init__()
                layers = []
                layers.append(nn.Linear(1, 1))
                self.hids = layers
            def other(self):
                layers = []
                layers.append(nn.Tanh())
        """
    )
    assert texts(source.container_sites(module.M(), "hids")) == ["layers.append(nn.Linear(1, 1))", "self.hids = layers"]


def test_container_sites_filled_from_outside(load: Import) -> None:
    module = load(
        """
        class M(nn.Module):
            layers = [None] * 2
        class Unrelated:
            def fill(self):
                self.layers.append(1)
        model = M()
        model.layers.append(nn.Linear(1, 1))
        """
    )
    got = texts(source.container_sites(module.model, "layers", [module.__file__]))
    assert got == ["model.layers.append(nn.Linear(1, 1))", "layers = [None] * 2"]


# freeze_sites


@pytest.mark.parametrize(
    "text",
    [
        "p.requires_grad = False",
        "p.requires_grad = flag",
        "p.requires_grad = q.requires_grad = False",
        "p.requires_grad: bool = False",
        "m.requires_grad_(False)",
        "m.requires_grad_(requires_grad=flag)",
        "part.requires_grad_(name == active)",
        "setattr(p, 'requires_grad', False)",
        "nn.Parameter(x, requires_grad=False)",
        "torch.nn.Parameter(x, False)",
        "nn.Embedding.from_pretrained(table)",
        "model.freeze_backbone()",
        "freeze(model)",
        "set_requires_grad([net], False)",
    ],
)
def test_freeze_sites(write: Write, text: str) -> None:
    assert texts(source.freeze_sites([write(text)])) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "p.requires_grad = True",
        "m.requires_grad_()",
        "m.requires_grad_(True)",
        "nn.Parameter(x)",
        "nn.Parameter(x, requires_grad=True)",
        "torch.zeros(1, requires_grad=False)",
        "nn.Embedding.from_pretrained(table, freeze=False)",
        "AutoModel.from_pretrained(name)",
        "model.unfreeze()",
        "set_requires_grad([net], True)",
        "assert p.requires_grad == False",
        "'p.requires_grad = False'",
    ],
)
def test_freeze_sites_quiet(write: Write, text: str) -> None:
    assert source.freeze_sites([write(text)]) == ()


def test_freeze_sites_keep_the_order_of_the_files(write: Write) -> None:
    first = write("freeze(a)\nb.requires_grad = False\n", "first.py")
    second = write("c.requires_grad_(False)\n", "second.py")
    want = ["b.requires_grad = False", "c.requires_grad_(False)", "freeze(a)"]
    assert texts(source.freeze_sites([first, second])) == want


RELEVANCE = """
for p in model.parameters():
    p.requires_grad = 1 > 2
for a, b in zip(self.online.parameters(), self.target.parameters()):
    b.requires_grad = False
for n, p in net.named_parameters():
    if "head" in n:
        p.requires_grad = not True
    else:
        p.requires_grad = None
for block in model.encoder.layer[:2]:
    for p in block.parameters():
        p.requires_grad = flag
self.scale = nn.Parameter(x, requires_grad=False)
model.encoder.layer[1].requires_grad_(False)
if config.mode == "probe":
    for p in everything():
        p.requires_grad = 0
freeze_encoder()
"""


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("target.fc.weight", "b.requires_grad = False"),
        ("head.bias", "p.requires_grad = not True"),
        ("encoder.layer.0.weight", "p.requires_grad = flag"),
        ("encoder.layer.1.weight", "model.encoder.layer[1].requires_grad_(False)"),
        ("scale", "nn.Parameter(x, requires_grad=False)"),
        ("online.fc.weight", "p.requires_grad = 1 > 2"),
        ("block.weight", "p.requires_grad = 1 > 2"),
    ],
)
def test_freeze_sites_likeliest_first(write: Write, name: str, want: str) -> None:
    assert texts(source.freeze_sites([write(RELEVANCE)], name=name))[0] == want


def test_freeze_sites_with_a_name_gives_the_same_sites(write: Write) -> None:
    file = write(RELEVANCE)
    assert set(source.freeze_sites([file], name="nothing.at.all")) == set(source.freeze_sites([file]))


def test_freeze_sites_of_installed_packages_count_where_the_users_files_have_none(write: Write) -> None:
    library, own = write("head.requires_grad = False\n", "site-packages/library.py"), write("freeze(m)\n", "own.py")
    assert texts(source.freeze_sites([library, own], name="head.weight")) == ["freeze(m)"]
    assert texts(source.freeze_sites([library, write("m(x)\n", "other.py")])) == ["head.requires_grad = False"]


def test_freeze_sites_a_name_imported_as_another_is_still_found(write: Write) -> None:
    file = write("from torch.nn import Parameter as P\nw = P(x, False)\n")
    assert texts(source.freeze_sites([file])) == ["P(x, False)"]


def test_freeze_sites_what_only_sounds_like_freezing_is_last(write: Write) -> None:
    assert texts(source.freeze_sites([write(RELEVANCE)], name="encoder.layer.1.weight"))[-1] == "freeze_encoder()"


def test_freeze_sites_a_condition_that_spares_the_name_is_unlikely(write: Write) -> None:
    file = write(
        """
        for n, p in net.named_parameters():
            if not n.startswith(("head", "fc")):
                p.requires_grad = False
        for n, p in net.named_parameters():
            p.requires_grad = any(k in n for k in ["body"])
        """
    )
    assert texts(source.freeze_sites([file], name="fc.weight"))[0] == 'p.requires_grad = any(k in n for k in ["body"])'


# grad_off_sites


@pytest.mark.parametrize(
    "text",
    [
        "torch.set_grad_enabled(False)",
        "torch.set_grad_enabled(mode=False)",
        "torch.set_grad_enabled(flag)",
        "torch._C._set_grad_enabled(False)",
        "torch.autograd.set_grad_enabled(False)",
        "torch.no_grad().__enter__()",
        "torch.inference_mode().__enter__()",
        "set_grad_enabled(False)",
        "sge(False)",
        "ctx.__enter__()",
    ],
)
def test_grad_off_sites(write: Write, text: str) -> None:
    before = "import torch\nfrom torch import set_grad_enabled as sge\nctx = torch.no_grad()\n"
    assert texts(source.grad_off_sites([write(before + text)])) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "torch.set_grad_enabled(True)",
        "with torch.set_grad_enabled(False): pass",
        "@torch.set_grad_enabled(False)\ndef f(): pass",
        "guard = torch.set_grad_enabled(False)",
        "stack.enter_context(torch.set_grad_enabled(False))",
        "torch.no_grad()",
        "torch.enable_grad().__enter__()",
        "torch.inference_mode(False).__enter__()",
        "open(f).__enter__()",
    ],
)
def test_grad_off_sites_quiet(write: Write, text: str) -> None:
    assert source.grad_off_sites([write(text)]) == ()


def test_grad_off_sites_a_literal_comes_first(write: Write) -> None:
    file = write("torch.set_grad_enabled(before)\ntorch.set_grad_enabled(False) if x else None\n")
    assert texts(source.grad_off_sites([file])) == ["torch.set_grad_enabled(False)", "torch.set_grad_enabled(before)"]


# region_site, decorator_site, no_grad_site


@pytest.mark.parametrize(
    ("header", "want"),
    [
        ("with torch.no_grad():", "torch.no_grad()"),
        ("with torch.inference_mode() as mode:", "torch.inference_mode() as mode"),
        ("with torch.set_grad_enabled(flag):", "torch.set_grad_enabled(flag)"),
        ("with open(f), torch.no_grad(), lock:", "torch.no_grad()"),
        ("with (torch.no_grad() if flag else nullcontext()):", "torch.no_grad() if flag else nullcontext()"),
        ("with ng():", "ng()"),
        ("with context:", "context"),
        ("async with torch.no_grad():", "torch.no_grad()"),
        ("with torch.set_grad_enabled(True):", None),
        ("with torch.inference_mode(False):", None),
        ("with torch.enable_grad():", None),
        ("with torch.autocast('cpu'):", None),
        ("if torch.no_grad():", None),
    ],
)
def test_region_site(write: Write, header: str, want: str | None) -> None:
    body = f"async def f(x):\n    context = torch.no_grad()\n    {header}\n        y = x\n"
    file = write("import torch\nfrom torch import no_grad as ng\n" + body)
    assert text_or_none(source.region_site(file, line_with(file, "y = x"))) == want


def test_region_sites_innermost_first(write: Write) -> None:
    file = write("with torch.no_grad():\n    for i in x:\n        with inference_mode(): y = i\n    z = 1\nw = 2\n")
    got = [texts(source.region_sites(file, line)) for line in (3, 4, 5)]
    assert got == [["inference_mode()", "torch.no_grad()"], ["torch.no_grad()"], []]


def test_region_sites_stop_at_the_function(write: Write) -> None:
    file = write("with torch.no_grad():\n    def f(x):\n        return x\n")
    assert source.region_sites(file, 3) == ()


def test_region_sites_enable_grad_hides_no_grad_only(write: Write) -> None:
    file = write("with torch.no_grad(), torch.inference_mode():\n    with torch.enable_grad():\n        y = 1\n")
    assert texts(source.region_sites(file, 3)) == ["torch.inference_mode()"]


DECORATED = """
from torch import no_grad as ng
class M(nn.Module):
    @staticmethod
    @torch.no_grad()
    def called(x):
        return x + 1
    @torch.inference_mode
    def bare(self, x):
        return x + 2
    @ng()
    async def alias(self, x):
        return x + 3
    @torch.set_grad_enabled(False)
    def off(self, x):
        with torch.enable_grad():
            y = x + 4
        return x + 5
    @torch.set_grad_enabled(True)
    def on(self, x):
        return x + 6
    @torch.no_grad()
    def outer(self, x):
        def inner(y):
            return y + 7
        return inner
"""


@pytest.mark.parametrize(
    ("method", "want"),
    [
        ("called", "@torch.no_grad()"),
        ("bare", "@torch.inference_mode"),
        ("alias", "@ng()"),
        ("off", "@torch.set_grad_enabled(False)"),
        ("on", None),
    ],
)
def test_decorator_site(load: Import, method: str, want: str | None) -> None:
    code = getattr(load(DECORATED).M, method).__wrapped__.__code__
    assert text_or_none(source.decorator_site(code)) == want


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("x + 1", "@torch.no_grad()"),
        ("x + 2", "@torch.inference_mode"),
        ("x + 4", None),
        ("x + 5", "@torch.set_grad_enabled(False)"),
        ("x + 6", None),
        ("y + 7", None),
        ("class M", None),
    ],
)
def test_no_grad_site(load: Import, words: str, want: str | None) -> None:
    file = load(DECORATED).__file__
    assert file is not None
    assert text_or_none(source.no_grad_site(Site(file, line_with(file, words)))) == want


def test_no_grad_site_prefers_the_region(write: Write) -> None:
    file = write("@torch.no_grad()\ndef f(x):\n    with torch.inference_mode():\n        return x\n")
    assert text_or_none(source.no_grad_site(Site(file, 4))) == "torch.inference_mode()"


# optimizer_sites


@pytest.mark.parametrize(
    "text",
    [
        "torch.optim.AdamW(p, lr=1)",
        "AdamW(p)",
        "optim.AdamW(p)",
        "Alias(p)",
        "chosen(p)",
        "modules[0].AdamW(p)",
        "functools.partial(torch.optim.AdamW, lr=1)",
    ],
)
def test_optimizer_sites(write: Write, text: str) -> None:
    before = "import torch\nfrom torch.optim import AdamW as Alias\nchosen = torch.optim.AdamW\n"
    file = write(f"{before}opt = {text}\n")
    assert texts(source.optimizer_sites([file], torch.optim.AdamW([torch.ones(1)]))) == [text]


@pytest.mark.parametrize("text", ["optim.Adam(p)", "isinstance(opt, AdamW)", "class AdamW(B): pass", "MyAdamW(p)"])
def test_optimizer_sites_quiet(write: Write, text: str) -> None:
    assert source.optimizer_sites([write(text)], torch.optim.AdamW([torch.ones(1)])) == ()


def test_optimizer_sites_in_the_order_of_the_files(write: Write) -> None:
    first, second = write("SGD(a)\nx = [SGD(b)]\n", "first.py"), write("SGD(c)\n", "second.py")
    assert texts(source.optimizer_sites([second, first], torch.optim.SGD)) == ["SGD(c)", "SGD(a)", "SGD(b)"]


# replacement_sites

TIED = """
class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok, self.lm_head = nn.Embedding(2, 2), nn.Linear(2, 2)
        self.tie_weights()
        self.lm_head.weight = self.tok.weight
    def tie_weights(self):
        self.lm_head.weight = self.tok.weight
    def resize(self, n):
        self.lm_head = nn.Linear(2, n)
    def reset(self):
        self.weight = nn.Parameter(torch.ones(1))
class Tied(Decoder):
    def tie_weights(self):
        super().tie_weights()
def make():
    model = Decoder()
    model.tie_weights()
    model.resize(15)
    model.forward(1)
"""


def test_replacement_sites(write: Write) -> None:
    assert texts(source.replacement_sites([write(TIED)], "lm_head.weight")) == [
        "self.lm_head.weight = self.tok.weight",
        "self.lm_head = nn.Linear(2, n)",
        "self.weight = nn.Parameter(torch.ones(1))",
        "model.tie_weights()",
        "model.resize(15)",
    ]


def test_replacement_sites_through_a_call_on_self(write: Write) -> None:
    file = write(
        """
        class M(nn.Module):
            def __init__(self):
                self.prepare()
            def set_head(self, new):
                self.head = new
            def prepare(self):
                self.set_head(nn.Linear(1, 1))
            def other(self):
                model.set_nothing()
        model.prepare()
        model.other()
        """
    )
    want = ["self.head = new", "model.prepare()", "self.set_head(nn.Linear(1, 1))"]
    assert texts(source.replacement_sites([file], "head.weight")) == want


def test_replacement_sites_in_the_users_files_come_first(write: Write) -> None:
    library = write("def grow(m):\n    m.head = new\n", "site-packages/library.py")
    own = write("grow(model)\n", "own.py")
    assert texts(source.replacement_sites([library, own], "head.weight")) == ["grow(model)", "m.head = new"]


def test_replacement_sites_leave_out_construction(write: Write) -> None:
    file = write(TIED)
    lines = [site.line for site in source.replacement_sites([file], "lm_head.weight")]
    assert {line_with(file, "def __init__") + 3, line_with(file, "def __init__") + 4}.isdisjoint(lines)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model.fc = nn.Linear(1, 2)", "fc.weight"),
        ("model.fc = nn.Linear(1, 2)", "backbone.fc.weight"),
        ("self.model.fc = nn.Linear(1, 2)", "fc.weight"),
        ("model.layers[2] = Block()", "layers.2.attn.weight"),
        ("model.layers[i].attn = Block()", "layers.2.attn.weight"),
        ("del model.fc.weight", "fc.weight"),
        ("setattr(model.fc, 'weight', new)", "fc.weight"),
        ("model._modules['fc'] = new", "fc.weight"),
        ("model.fc._parameters['weight'] = new", "fc.weight"),
        ("model.get_submodule('x').fc.weight = new", "fc.weight"),
        ("getattr(model, 'fc').weight = new", "fc.weight"),
        ("model.fc.register_parameter('weight', new)", "fc.weight"),
        ("a, model.fc = 1, new", "fc.bias"),
        ("model.scale = nn.Parameter(x)", "scale"),
    ],
)
def test_replacement_sites_forms(write: Write, text: str, name: str) -> None:
    assert texts(source.replacement_sites([write(text)], name)) == [text]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model.fc2 = new", "fc.weight"),
        ("model.fc.bias = new", "fc.weight"),
        ("model.fc.weight.data = new", "fc.weight"),
        ("model.fc.weight *= 2", "fc.weight"),
        ("model.head.fc.weight = new", "body.fc.weight"),
        ("model.layers[1] = Block()", "layers.2.attn.weight"),
        ("setattr(model, name, new)", "fc.weight"),
        ("fc = nn.Linear(1, 1)", "fc.weight"),
    ],
)
def test_replacement_sites_quiet(write: Write, text: str, name: str) -> None:
    assert source.replacement_sites([write(text)], name) == ()


def test_replacement_sites_a_trainers_constructor_is_not_the_models(write: Write) -> None:
    file = write("class Trainer:\n    def __init__(self):\n        self.model.fc = new\n")
    assert texts(source.replacement_sites([file], "fc.weight")) == ["self.model.fc = new"]


# return_sites, backward_return_site, statement_site


def test_return_sites_are_the_functions_own(write: Write) -> None:
    file = write(
        """
        @decorate
        @again
        async def f(x):
            def g(y):
                return 1
            class C:
                def h(self):
                    return 2
            match x:
                case [a, *_] if (b := a):
                    return (b,
                            a)
            return
        """
    )
    got = [texts(source.return_sites(file, line)) for line in (2, 4, 1)]
    assert got == [["return (b, a)", "return"], ["return (b, a)", "return"], []]


def test_return_sites_of_a_lambda(write: Write) -> None:
    file = write("loss = lambda o: o.sum()\n")
    assert texts(source.return_sites(file, 1)) == ["o.sum()"]


FUNCTION = """
from torch.autograd.function import once_differentiable
class Two(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y): return x * y
    @staticmethod
    def backward(ctx, g):
        if not ctx.needs_input_grad[0]:
            return g, g
        if ctx.needs_input_grad[1]:
            return g, None
        return g * 2, g
class Inherits(Two):
    pass
class Once(torch.autograd.Function):
    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g * 3
class Named(torch.autograd.Function):
    @staticmethod
    def vjp(ctx, g):
        return g * 4
class Without(torch.autograd.Function):
    pass
"""


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("Two", ["return g, g", "return g, None", "return g * 2, g"]),
        ("Inherits", ["return g, g", "return g, None", "return g * 2, g"]),
        ("Once", ["return g * 3"]),
        ("Named", ["return g * 4"]),
        ("Without", []),
    ],
)
def test_backward_return_sites(load: Import, name: str, want: list[str]) -> None:
    assert texts(source.backward_return_sites(getattr(load(FUNCTION), name))) == want


def test_backward_return_sites_of_the_backward_node(load: Import) -> None:
    two = load(FUNCTION).Two
    node = two.apply(torch.ones(1, requires_grad=True), torch.ones(1)).grad_fn
    assert source.backward_return_sites(type(node)) == source.backward_return_sites(two) != ()


@pytest.mark.parametrize(("name", "want"), [("Two", "return g, None"), ("Once", "return g * 3"), ("Without", None)])
def test_backward_return_site_is_the_one_with_none(load: Import, name: str, want: str | None) -> None:
    assert text_or_none(source.backward_return_site(getattr(load(FUNCTION), name))) == want


STATEMENTS = """\
@decorate(
    x)
def f(
    a,  # a colon: here
    b=":",
) -> int:
    y = (a +
         b); z = lambda: y

    # a comment
    while (n := len(y)) > 3:
        pass
    else:
        z = 1
    try:
        w = 1
    except (ValueError, TypeError) as error:
        w = 2
    finally:
        w = 3
    match y:
        case [1]:
            return 1
    with open("#") as g, h:
        class C(A, k=1): v = 4
"""


@pytest.mark.parametrize(
    ("line", "column", "want"),
    [
        (2, 5, 'def f( a,  # a colon: here b=":", ) -> int'),
        (4, 5, 'def f( a,  # a colon: here b=":", ) -> int'),
        (7, 10, "y = (a + b)"),
        (8, 10, "y = (a + b)"),
        (8, 20, "z = lambda: y"),
        (8, 0, "y = (a + b)"),
        (11, 12, "while (n := len(y)) > 3"),
        (12, 9, "pass"),
        (12, 1, "pass"),
        (14, 0, "z = 1"),
        (15, 6, "try"),
        (17, 15, "except (ValueError, TypeError) as error"),
        (22, 15, "match y"),
        (23, 9, "return 1"),
        (23, 13, "return 1"),
        (24, 12, 'with open("#") as g, h'),
        (25, 12, "class C(A, k=1)"),
        (25, 28, "v = 4"),
        (99, 1, None),
    ],
)
def test_statement_site(write: Write, line: int, column: int, want: str | None) -> None:
    file = write(STATEMENTS)
    assert text_or_none(source.statement_site(file, line, column)) == want


# suppressions


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("x = 1  # fxgrad: ignore[FXG103]", {1: {"FXG103"}}),
        ("x = 1  # fxgrad: ignore[FXG103, fxg105]  the teacher is fixed", {1: {"FXG103", "FXG105"}}),
        ("x = 1  # fxgrad: ignore", {1: set()}),
        ("x = 1  #fxgrad:ignore because", {1: set()}),
        ("x = (1,\n     2)  # noqa  # fxgrad: ignore[FXG103]", {2: {"FXG103"}}),
        ("x = 1  # fxgrad: ignore[FXG103]  # fxgrad: ignore[FXG105]", {1: {"FXG103", "FXG105"}}),
        ("x = '# fxgrad: ignore'", {}),
        ('"""\n# fxgrad: ignore\n"""', {}),
        ("x = 1  # fxgrad: ignore[]", {}),
        ("x = 1  # fxgrad: ignore [FXG103", {}),
        ("x = 1  # fxgrad: ignored", {}),
        ("x = 1  # fxgrad: ignore-file", {}),
        ("x = 1  # ignore", {}),
        ("x = 1  # fxgrad: ignore\ny = '''", {1: set()}),
        ("", {}),
    ],
)
def test_suppressions(write: Write, text: str, want: dict[int, set[str]]) -> None:
    assert source.suppressions(write(text)) == want


# Nothing raises


@pytest.mark.parametrize("text", ["def f(:\n", "x = '''", "\0", "(" * 5000, "  x\n y\n"])
def test_nothing_raises_on_broken_source(write: Write, text: str) -> None:
    file = write(text)
    got = [
        source.freeze_sites([file], name="a.b"),
        source.grad_off_sites([file]),
        source.optimizer_sites([file], torch.optim.SGD),
        source.replacement_sites([file], "a.b"),
        source.region_sites(file, 1),
        source.return_sites(file, 1),
        source.attribute_sites(nn.Linear(1, 1), "weight", [file]),
        source.container_sites(nn.Linear(1, 1), "weight", [file]),
    ]
    assert got == [()] * len(got)


def test_nothing_raises_on_a_missing_file(tmp_path: Path) -> None:
    file = str(tmp_path / "missing.py")
    got = [source.statement_site(file, 1, 1), source.region_site(file, 1), source.no_grad_site(Site(file, 1))]
    assert (got, dict(source.suppressions(file))) == ([None] * 3, {})


def test_nothing_raises_when_the_file_was_deleted_after_import(load: Import) -> None:
    module = load(MODEL)
    assert module.__file__ is not None
    os.remove(module.__file__)
    linecache.clearcache()
    assert source.attribute_sites(module.Model(), "one") == ()
