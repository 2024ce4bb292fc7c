"""Models whose arguments nobody gave, and which of a file's classes and functions is the model."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fxgrad.program.load import load
from fxgrad.program.step import step_of
from fxgrad.records.errors import InputError, LoadError

HEAD = """\
import argparse, dataclasses
import torch
from torch import nn


class Part(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.lin = nn.Linear(width, width)

    def forward(self, x):
        return self.lin(x)


"""
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write `model.py`, with the helper `Part` in it unless told, or another file below the current directory; its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str, name: str = "model.py", head: str = HEAD) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(head + text)
        return name

    return write_file


def net(arguments: str, body: str, name: str = "Net") -> str:
    """A class with these arguments, whose constructor is the body."""
    head = f"class {name}(nn.Module):\n    def __init__(self, {arguments}):\n        super().__init__()\n"
    return f"{head}        {body}; self.p = Part(2)\n\n    def forward(self, x):\n        return self.a(x)\n\n\n"


SETTINGS = "@dataclasses.dataclass\nclass NetConfig:\n    width: int = 6\n    depth: int = 3\n\n\n"
OPTIONS = (
    "def main():\n    p = argparse.ArgumentParser()\n    p.add_argument('--hidden-size', type=int, default=12)\n    Net(p.parse_args())\n"
)

# (what the file has beside `Part`, what is said of the model, what is assumed of its arguments)
GUESSED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "sizes by their names": (
        net("in_channels, num_classes, n_layers", "self.a = nn.Conv2d(in_channels, num_classes * n_layers, 3)"),
        "`Net(in_channels=3, num_classes=10, n_layers=2)`",
        ("--arg in_channels=3 (by the name `in_channels`)",),
    ),
    "as the file calls it": (
        net("d, e, **more", "self.a = nn.Linear(d, e)") + "SIZE = 7\nif __name__ == '__main__':\n    e = 5\n    model = Net(SIZE, e=e)\n",
        "`Net(d=7, e=5)`",
        ("--arg d=7 (as line 27 builds it)", "--arg e=5 (as line 27 builds it)"),
    ),
    "its class of settings": (
        SETTINGS + net("config", "self.a = nn.Linear(config.width, config.depth)"),
        "`Net(config=NetConfig())`",
        ("--arg config=NetConfig() (the file's own class of settings)",),
    ),
    "settings read one by one": (
        net("cfg", "self.a = nn.Linear(cfg.hidden_size, cfg['vocab_size'], bias=cfg.get('plain', True))"),
        "`Net(cfg=...)`",
        ("--arg cfg.hidden_size=64 (by the name `hidden_size`)", "--arg cfg.vocab_size=100 (by the name `vocab_size`)"),
    ),
    "settings within settings": (
        net("cfg", "self.a = nn.Linear(cfg.zoo.width, 4)"),
        "`Net(cfg=...)`",
        ("--arg cfg.zoo.width=64 (by the name `width`)",),
    ),
    "the defaults of its options": (
        net("args", "self.a = nn.Linear(args.hidden_size, 4)") + OPTIONS,
        "`Net(args=...)`",
        ("--arg args.hidden_size=12 (the default of the option)",),
    ),
    "a part of the file": (
        net("part, out_features", "self.a = nn.Sequential(part, nn.Linear(64, out_features))"),
        "`Net(part=Part(...), out_features=64)`",
        ("part=Part(...) (a class of the file, by the name `part`)", "--arg part.width=64 (by the name `width`)"),
    ),
    "a class of the file": (
        net("width", "self.a = nn.Linear(width, width)", "BasicBlock")
        + net("block, layers", "self.a = nn.Sequential(*[block(8) for _ in range(layers[0])], Part(8))", "Tower"),
        "`Tower(block=BasicBlock, layers=[2, 2, 2, 2])`",
        ("--arg block=BasicBlock (a class of the file, as `block` asks for one)",),
    ),
    "annotations": (
        net("a: int, sizes: 'list[int]', rate: float", "self.a = nn.Linear(a, sum(sizes)); self.p = nn.Dropout(rate)"),
        "`Net(a=64, sizes=[64, 64], rate=0.1)`",
        ("--arg a=64 (`a` is annotated int)",),
    ),
    "texts that it compares": (
        net("kind, width", "self.a = nn.Linear(width, 2) if kind == 'line' else nn.Bilinear(2, 2, 2)"),
        "`Net(kind='line', width=64)`",
        ("--arg kind='line' (the class compares `kind` with it)",),
    ),
    "a sequence as long as it is read": (
        net("dims, img_shape", "a, b, c = dims; assert len(img_shape) == 2; self.a = nn.Linear(a, b)"),
        "`Net(dims=[64, 64, 64], img_shape=(3, 64))`",
        ("--arg dims=[64, 64, 64] (by the name `dims`)",),
    ),
    "a sequence by what is done with it": (
        net("d, num_channels", "self.a = nn.Sequential(*[nn.Linear(num_channels[i], d) for i in range(len(num_channels))])"),
        "`Net(d=64, num_channels=[3, 3])`",
        (),
    ),
    "a sequence of sequences": (
        net("masks, c", "self.a = nn.Conv2d(c, len(masks[0]) + len(masks[2]), 1)"),
        "`Net(masks=[[64, 64], [64, 64], [64, 64]], c=64)`",
        (),
    ),
    "an argument of forward's by the same name is another": (
        net("hidden", "self.a = nn.Linear(hidden, 2)") + "    def step(self, hidden):\n        return hidden[0]\n",
        "`Net(hidden=64)`",
        (),
    ),
    "settings of which some are None": (
        net("cfg", "assert (cfg.kind is None) != (cfg.n_layer is None); self.a = nn.Linear(cfg.n_embd, 2)"),
        "`Net(cfg=...)`",
        ("--arg cfg.n_layer=None (the file compares `n_layer` with None)",),
    ),
    "settings compared with texts": (
        net("args", "self.a = nn.Linear(4, {'small': 2, 'large': 3}[args.arch] if args.arch != 'small' else 2)"),
        "`Net(args=...)`",
        ("--arg args.arch='small' (the class compares `arch` with it)",),
    ),
    "settings that are asked for a key that nobody told": (
        net("args", "args.drop = args.drop if 'drop' in args else 0; self.a = nn.Linear(args.n_embd, 2)"),
        "`Net(args=...)`",
        ("--arg args.n_embd=64 (by the name `n_embd`)",),
    ),
    "settings that are spread over a call": (
        net("width, extra", "self.a = Part(width); self.b = Pair(width, **extra)")
        + "class Pair(nn.Module):\n    def __init__(self, a, n_layers, *, kernel_size):\n        super().__init__()\n"
        "        self.c = nn.Conv1d(a, n_layers, kernel_size)\n    def forward(self, x): return self.c(x)\n",
        "`Net(width=64, extra=...)`",
        ("--arg extra.n_layers=2 (by the name `n_layers`)", "--arg extra.kernel_size=3 (by the name `kernel_size`)"),
    ),
    "what a base asks for": (
        net("width, n_layers", "self.a = nn.Linear(width, n_layers)")
        + "class Deep(Net):\n    def __init__(self, **kwargs):\n        super().__init__(**kwargs)\n",
        "`Deep(width=64, n_layers=2)`",
        ("--arg width=64 (by the name `width`)",),
    ),
    "what a base asks for after the first": (
        net("width, n_layers", "self.a = nn.Linear(width, n_layers)")
        + "class Deep(Net):\n    def __init__(self, width, *args, **kwargs):\n        super().__init__(width * 2, *args, **kwargs)\n",
        "`Deep(width=64, n_layers=2)`",
        ("--arg n_layers=2 (by the name `n_layers`)",),
    ),
    "settings that must have a key": (
        net("cfg", "assert 'width' in cfg; self.a = nn.Linear(cfg['width'], 2)"),
        "`Net(cfg=...)`",
        ("--arg cfg.width=64 (by the name `width`)",),
    ),
    "settings that are asked for their truth": (
        net("args", "self.a = nn.Linear(4, 2) if args.small and not args.deep else nn.Linear(4, 8)"),
        "`Net(args=...)`",
        ("--arg args.small=False (the file tests `small`)",),
    ),
    "counts of what a name does not tell": (
        net("n_flow, n_src_vocab", "self.a = nn.Embedding(n_src_vocab, n_flow)"),
        "`Net(n_flow=2, n_src_vocab=100)`",
        (),
    ),
    "a value that fails is replaced": (
        net("in_features, heads", "assert heads == 2; self.a = nn.Linear(in_features, heads)"),
        "`Net(in_features=64, heads=2)`",
        ("--arg heads=2 (by the name `heads`)",),
    ),
    "widths that are walked in pairs": (
        net("layers_hidden", "self.a = nn.Sequential(*(nn.Linear(a, b) for a, b in zip(layers_hidden, layers_hidden[1:])))"),
        "`Net(layers_hidden=[64, 64])`",
        ("--arg layers_hidden=[64, 64] (by the name `layers_hidden`)",),
    ),
    "widths of which the first is apart": (
        net("widths", "self.a = nn.Linear(widths[0], 2); self.rest = [nn.Linear(w, w) for w in widths[1:]]"),
        "`Net(widths=[64, 64])`",
        (),
    ),
    "pairs of which the first is apart": (
        net("sizes", "self.a = nn.Linear(sizes[0][1], 2); self.rest = sizes[1:]"),
        "`Net(sizes=[[64, 64]])`",
        (),
    ),
    "several shares": (
        net("field_dims, dropouts", "self.a = nn.Linear(sum(field_dims), 2); self.ps = dropouts"),
        "`Net(field_dims=[64, 64, 64], dropouts=[0.1, 0.1])`",
        (),
    ),
    "the length of a piece": (
        net("seq_len, patch_len", "self.a = nn.Linear(seq_len // patch_len, 2)"),
        "`Net(seq_len=32, patch_len=8)`",
        (),
    ),
    "a function that needs some": (
        "def Zoo(vocab_size):\n    layers = nn.Sequential(nn.Embedding(vocab_size, 8), Part(8))\n    return layers.eval()\n",
        "what `Zoo(vocab_size=100)` returns",
        ("--arg vocab_size=100 (by the name `vocab_size`)",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GUESSED)
def test_arguments_are_guessed_and_said(write: Write, kind: str) -> None:
    text, said, assumed = GUESSED[kind]
    loaded = load(write(text))
    assert loaded.notes == (f"no name was given: the model is {said} in model.py",)
    assert set(assumed) <= set(loaded.assumed)


# (what the file has beside `Part`, the model that is taken)
CANDIDATES: dict[str, tuple[str, str]] = {
    "a function of any case": ("def Small():\n    return nn.Sequential(Part(4))\n", "what `Small()` returns"),
    "a function with defaults": ("def net34(depth=2):\n    net = nn.Sequential(*[Part(4)] * depth)\n    return net\n", "what `net34()` returns"),
    "a function, not the classes that it is made of": (
        "class Head(nn.Linear):\n    def __init__(self):\n        super().__init__(4, 2)\n"
        "    def forward(self, x): return super().forward(x)\ndef whole():\n    return nn.Sequential(Part(4), Head())\n",
        "what `whole()` returns",
    ),
    "a function that hands on": (
        net("size=4", "self.a = Part(size)").replace("size=4", "size") + "def _make(n):\n    return Net(n)\ndef tiny():\n    return _make(4)\n",
        "what `tiny()` returns",
    ),
    "the class, where a function only gives that": (net("size=4", "self.a = Part(size)") + "def Tiny():\n    return Net(5)\n", "`Net()`"),
    "not a helper that a function puts in": (
        "class Swish(nn.Module):\n    def forward(self, x): return x.sigmoid() * x\ndef block(n):\n    return nn.Sequential(Part(n), Swish())\n"
        + net("width", "self.a = block(width)"),
        "`Net(width=64)`",
    ),
    "not a loss of the user's": (
        "class Margin(nn.Module):\n    def forward(self, a, b): return (a - b).relu().sum()\n" + net("width=4", "self.a = Part(width)"),
        "`Net()`",
    ),
    "not a function that tests": ("def tiny():\n    return Part(4)\ndef test():\n    return tiny()(torch.ones(1, 4))\n", "what `tiny()` returns"),
    "not a class for TorchScript in it": (
        "class Fast(torch.jit.ScriptModule):\n    def __init__(self):\n        super().__init__()\n        self.lin = nn.Linear(4, 4)\n"
        "    @torch.jit.script_method\n    def forward(self, x):\n        return self.lin(x)\n" + net("width=4", "self.a = nn.Sequential(Fast(), Part(width))"),
        "`Net()`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CANDIDATES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_candidate_is_what_no_other_is_made_of(write: Write, kind: str) -> None:
    text, said = CANDIDATES[kind]
    assert load(write(text)).notes == (f"no name was given: the model is {said} in model.py",)


def test_functions_that_differ_are_listed(write: Write) -> None:
    write("def Small():\n    return nn.Sequential(Part(2))\n\n\ndef Large():\n    return nn.Sequential(Part(2), Part(2))\n")
    with pytest.raises(LoadError) as caught:
        load("model.py")
    assert caught.value.reason == "model.py has several models: Small (line 15), Large (line 19)"
    assert caught.value.hint == "name one, as in model.py:Small"


def test_arguments_are_set(write: Write) -> None:
    write(SETTINGS + net("config, extra=1", "self.a = nn.Linear(config.width, config.depth + extra)"))
    given = load("model.py", arguments=["config.width=9", "extra=2"])
    assert (given.model.a.in_features, given.model.a.out_features) == (9, 5)
    assert load("model.py:Net", arguments=["config=NetConfig(width=2)"]).model.a.in_features == 2
    assert load("model.py:Part", arguments=["width=11"]).model.lin.in_features == 11


def test_arguments_that_are_handed_on_are_set(write: Write) -> None:
    write(
        net("width", "self.a = nn.Linear(width, 2)") + "class Deep(Net):\n    def __init__(self, **kw):\n        super().__init__(**kw)\n"
    )
    assert load("model.py:Deep", arguments=["width=9"]).model.a.in_features == 9


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["widht=3"], "`Part` has no argument `widht`"),
        (["3"], "cannot read the argument '3'"),
        (["width='x'"], "building Part: no guess"),
    ],
)
def test_arguments_that_cannot_be_set(write: Write, arguments: list[str], reason: str) -> None:
    with pytest.raises(LoadError, match=reason.replace("(", r"\(")):
        load(write(""), arguments=arguments)


@pytest.mark.parametrize("package", [True, False])
def test_a_file_with_relative_imports_is_part_of_its_package(write: Write, package: bool) -> None:
    for folder in ("zoo", "zoo/deep") if package else ():
        write("", f"{folder}/__init__.py", head="")
    write("width = 6\n", "zoo/sizes.py", head="")
    write("from ..sizes import width\nfrom torch import nn\n\n\ndef build():\n    return nn.Linear(width, 2)\n", "zoo/deep/net.py", head="")
    before = torch.get_rng_state()
    loaded = load("zoo/deep/net.py")
    assert loaded.model.in_features == 6
    assert loaded.module is not None
    assert loaded.module.__name__ == "zoo.deep.net"
    assert before.shape == torch.get_rng_state().shape


def test_a_file_may_import_its_package_by_name(write: Write) -> None:
    write("", "zoo/__init__.py", head="")
    write("width = 6\n", "zoo/sizes.py", head="")
    assert (
        load(
            write("from zoo.sizes import width\nfrom torch import nn\nnet = nn.Linear(width, 2)\n", "zoo/net.py", head="")
        ).model.in_features
        == 6
    )


def test_a_file_may_import_from_the_folder_of_its_project(write: Write) -> None:
    write("from parts.sizes import width\n", "parts/norm.py", head="")
    write("width = 6\n", "parts/sizes.py", head="")
    before = sys.path[:]
    text = "from parts.norm import width\nfrom torch import nn\nnet = nn.Linear(width, 2)\n"
    assert load(write(text, "models/deep/net.py", head="")).model.in_features == 6
    assert sys.path == before
    with pytest.raises(LoadError, match="No module named 'elsewhere'"):
        load(write("import elsewhere\n", "models/deep/other.py", head=""))


def test_a_file_may_import_by_the_name_of_a_folder_without_python_files(write: Write) -> None:
    write("width = 6\n", "src/parts/sizes.py", head="")
    write("", "models/src/notes.txt", head="")
    text = "from src.parts.sizes import width\nfrom src.parts import sizes\nfrom torch import nn\nnet = nn.Linear(width, 2)\n"
    assert load(write(text, "src/models/deep/net.py", head="")).model.in_features == 6
    assert load(write(text, "models/net.py", head="")).model.in_features == 6
    assert not any(name.partition(".")[0] == "src" for name in sys.modules)


READS = """\
class Net(nn.Module):
    def __init__(self, h):
        super().__init__()
        self.body = nn.ModuleList([nn.Conv1d(h.width, h.width, k) for k in h.kernels])
        self.bias = getattr(h, "bias", False)
        self.head = Part(h.width)

    def forward(self, x):
        return self.head(x)
"""


def test_settings_are_read_from_a_json_file_beside(write: Write) -> None:
    write('{"kernels": [3]}', "another.json", head="")
    write('["width", "kernels"]', "list.json", head="")
    write('{"width": ', "torn.json", head="")
    write('{"width": 6, "kernels": [3, 5], "bias": true, "lr": 0.1}', "config_v1.json", head="")
    loaded = load(write(READS))
    assert [layer.kernel_size for layer in loaded.model.body] == [(3,), (5,)]
    assert loaded.model.bias is True
    assert "--arg h.width=6 (as config_v1.json has it)" in loaded.assumed
    assert load(write(READS), arguments=("h.width=4",)).model.head.lin.in_features == 4


def test_without_such_a_file_what_is_read_by_attribute_is_settings_whatever_its_name(write: Write) -> None:
    write('{"width": 6}', "config.json", head="")
    loaded = load(write(READS))
    assert loaded.model.head.lin.in_features == 64
    assert not any(".json" in line for line in loaded.assumed)


def test_an_argument_that_has_what_is_read_of_it_is_no_settings(write: Write) -> None:
    text = net("h", "self.a = nn.Linear(h.bit_length() + h.real, 2)")
    assert not any("read from" in line for line in load(write(text)).assumed)


KINDS = """\
class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        if config.embed_kind == 1:
            self.a = Part(4)
        elif config.embed_kind == 3:
            self.a = Part(6)

    def forward(self, x):
        return self.a(x)
"""


def test_a_number_that_the_program_tells_apart_is_guessed(write: Write) -> None:
    loaded = load(write(KINDS))
    assert "--arg config.embed_kind=1 (`embed_kind` is compared with 1, 3)" in loaded.assumed
    assert loaded.model.a.lin.in_features == 4


def test_a_guess_that_leaves_no_parameters_is_the_last_that_is_taken(write: Write) -> None:
    text = net("shortcut, width", "self.a = nn.Identity() if shortcut else nn.Linear(width, 2)").replace("; self.p = Part(2)", "")
    loaded = load(write(text, head=HEAD.partition("class Part")[0]))
    assert loaded.model.a.in_features == 64
    bare = text.replace("nn.Linear(width, 2)", "nn.ReLU()")
    assert load(write(bare, "bare.py", head=HEAD.partition("class Part")[0])).model is not None


ALONE = "import torch\nfrom torch import nn\n\n\n"
UNSET = """\
class Net(nn.Module):
    def __init__(self, act=None, dim=None, classes=None, deep=True):
        super().__init__()
        {body}

    @classmethod
    def of_kind(cls, kind):
        return cls(None, 4, 2)

    def forward(self, x):
        return self.a(x)
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("self.a = nn.Linear(dim, 2)", "`Net(dim=64)`"),
        ("assert dim is not None or classes is not None, 'give one'; self.a = nn.Linear(dim or 4, classes or 3)", "`Net(classes=10)`"),
        ("self.a = nn.Linear(dim, classes)", "`Net(dim=64, classes=10)`"),
        ("self.a = nn.Linear(dim or 4, 2)", "`Net()`"),
    ],
)
def test_what_a_constructor_asks_for_though_it_may_be_left_out_is_guessed(write: Write, body: str, said: str) -> None:
    assert load(write(UNSET.format(body=body), head=ALONE)).notes == (f"no name was given: the model is {said} in model.py",)


def test_what_to_write_for_what_may_be_left_out_and_cannot_be_guessed(write: Write) -> None:
    with pytest.raises(LoadError, match="dim should be a Shape") as caught:
        load(write(UNSET.format(body="assert type(dim).__name__ == 'Shape', 'dim should be a Shape'"), head=ALONE))
    assert (
        "--arg act=... --arg dim=... --arg classes=..., or write a function that builds it, as `Net.of_kind(...)` does" in caught.value.hint
    )
    with pytest.raises(LoadError, match="misspelt") as caught:
        load(write(UNSET.format(body="self.a = misspelt"), "other.py", ALONE))
    assert "--arg" not in caught.value.hint


def test_a_checkout_whose_name_no_import_can_have_is_no_package(write: Write) -> None:
    write("", "my-nets+1/__init__.py", head="")
    write("", "my-nets+1/zoo/__init__.py", head="")
    write("width = 6\n", "my-nets+1/zoo/sizes.py", head="")
    loaded = load(write("from .sizes import width\nfrom torch import nn\nnet = nn.Linear(width, 2)\n", "my-nets+1/zoo/net.py", head=""))
    assert loaded.model.in_features == 6
    with pytest.raises(LoadError, match="No module named 'elsewhere'") as caught:
        load(write("from .sizes import width\nimport elsewhere\n", "my-nets+1/zoo/other.py", head=""))
    assert caught.value.hint == f"install it for {sys.executable}"


TASKS = """class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.task = config.task
        self.a = nn.Linear(config.enc_in, config.width)
        self.b = nn.Sequential(Part(config.width), nn.Dropout(config.share), nn.Linear(config.width, config.q))
        self.c = nn.Linear(config.q, config.r)

    def forward(self, x):
        x = self.c(self.b(self.a(x)))
        if self.task == "classify":
            raise ValueError("only forecasts")
        if self.task == "impute":
            raise ValueError("only forecasts")
        if self.task == "forecast":
            return x
        raise ValueError("only forecasts")
"""


def test_another_text_that_the_class_tells_apart_comes_before_other_sizes(write: Write) -> None:
    loaded = load(write(TASKS))
    assert [loaded.model.task, *(other.model.task for other in itertools.islice(loaded.others, 3))] == [
        "classify",
        "impute",
        "forecast",
        "other",
    ]


DIVIDES = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.task, self.parts = config.task, 0 * config.qq
        self.a = nn.Linear(16, 16)

    def forward(self, x):
        if self.task == "forecast":
            DO
            return self.a(x)
        if self.task == "impute":
            WHAT
        return None
"""


def test_what_a_guessed_argument_may_be_to_blame_for_is_no_verdict(write: Write) -> None:
    path = write(DIVIDES.replace("DO", "x = x + 7 % self.parts").replace("WHAT", "return self.a(x)"), head="")
    with step_of(path) as step:
        assert step.model.task == "impute"
    path = write(DIVIDES.replace("DO", "x = x + 7 % self.parts").replace("WHAT", "pass"), "both.py", head="")
    with pytest.raises(InputError) as caught, step_of(path):
        pass
    assert "with config.qq=64 guessed the model raises ZeroDivisionError" in str(caught.value)
    assert caught.value.site is not None
    assert caught.value.site.line == 14
    assert "--arg config.qq=..." in str(caught.value.hint)
    path = write(DIVIDES.replace("DO", "return").replace("WHAT", "pass"), "none.py", head="")
    with pytest.raises(InputError, match=r"with config.qq=64 guessed the model returns None"), step_of(path):
        pass


def test_what_no_guess_is_behind_is_told_of_the_program(write: Write) -> None:
    text = DIVIDES.replace("self, config", "self").replace("config.task, 0 * config.qq", "'forecast', 0")
    with step_of(write(text.replace("DO", "x = x + 7 % self.parts").replace("WHAT", "pass"), head="")) as step:
        assert any("raises ZeroDivisionError" in line for line in step.found)


def test_of_several_the_one_made_of_the_most_is_named(write: Write) -> None:
    text = "class {}(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a = {}\n\n    def forward(self, x):\n        return self.a(x)\n\n\n"
    with pytest.raises(LoadError, match=r"has several models: Alone .*, Whole ") as caught:
        load(write(text.format("Alone", "nn.Linear(2, 2)") + text.format("Whole", "Part(2)")))
    assert caught.value.hint == "name one, as in model.py:Whole"


def test_what_cannot_be_downloaded_is_not_blamed_on_the_arguments(write: Write) -> None:
    with pytest.raises(LoadError, match=r"needs arguments: width; building it raises FileNotFoundError: .*weights.pt") as caught:
        load(write(net("width", "open('weights.pt')")))
    assert caught.value.hint.startswith("what it reads or downloads is not here")


def test_a_file_that_parses_arguments(write: Write) -> None:
    text = "parser = argparse.ArgumentParser()\nparser.add_argument('--width', type=int, required=True)\nnet = Part(parser.parse_args().width)\n"
    assert load(write(text), argv=["--width", "5"]).model.lin.in_features == 5
    with pytest.raises(LoadError) as caught:
        load("model.py")
    assert "after `--`" in caught.value.hint


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("net.yaml", "net.yaml is settings, not code"),
        ("nobody/net-base", "nobody/net-base is no file here, and looks like a name on a hub"),
        ("net-base-uncased", "net-base-uncased is no file here, and looks like a name on a hub"),
        ("empty", "empty is a folder without a config.json"),
        ("wordless", "wordless/config.json names no model_type"),
        ("scripted.pt", "scripted.pt is a TorchScript program, which has no Python lines to name"),
        ("model.py:exported", "`exported` is an ExportedProgram, which cannot be called"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_model_is_refused_in_its_own_words(write: Write, model: str, reason: str) -> None:
    write("", "net.yaml", head="")
    Path("empty").mkdir()
    write("{}", "wordless/config.json", head="")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), "scripted.pt")
    write("exported = torch.export.export(Part(2), (torch.ones(1, 2),))\n")
    with pytest.raises(LoadError) as caught:
        load(model)
    assert caught.value.reason == reason
    assert caught.value.hint


def test_a_folder_with_a_configuration_is_a_model_without_weights(write: Write) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 40}
    write("", "folder/README", head="")
    transformers.BertConfig(**sizes, architectures=["BertForMaskedLM"]).save_pretrained("folder")
    loaded = load("folder")
    assert type(loaded.model).__name__ == "BertForMaskedLM"
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"meta"}
    assert loaded.notes == ("the model is a BertForMaskedLM built from folder/config.json on the meta device, without weights",)
