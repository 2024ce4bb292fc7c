"""What MODEL may name, what comes along with it, and one clear error for each way it can fail."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fxgrad.program.load import Loaded, load, loading
from fxgrad.records import Inputs
from fxgrad.records.errors import FxgradError, LoadError
from fxgrad.source import line_text
from fxgrad.source.sites import site_of

Write = Callable[..., str]

HEAD = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.a = nn.Linear(width, 2)

    def forward(self, x):
        return self.a(x)


"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file below the current directory, `model.py` with `Net` in it unless told; its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str = "", name: str = "model.py", head: str = HEAD) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + text)
        return name

    return write_file


def error_of(model: str, **options: Any) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(model, **options)
    return caught.value


def line_of(error: FxgradError) -> int:
    assert error.site is not None
    assert error.site.file == os.path.abspath("model.py")
    return error.site.line


# ------------------------------------------------------------------------------------------------------- what is a model


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("net = Net()", "net"),
        ("net = Net()", "Net"),
        ("def tiny():\n    return Net()", "tiny"),
        ("tiny = lambda: Net()", "tiny"),
        ("import functools\ntiny = functools.partial(Net, 5)", "tiny"),
        ("class Zoo:\n    net = Net()", "Zoo.net"),
        ("class Zoo:\n    @staticmethod\n    def net():\n        return Net()", "Zoo.net"),
        ("def tiny():\n    return {'model': Net()}", "tiny"),
    ],
)
def test_a_name_is_a_module_a_class_or_a_factory(write: Write, text: str, name: str) -> None:
    assert type(load(f"{write(text)}:{name}").model).__name__ == "Net"


def test_a_named_instance_is_that_very_one(write: Write) -> None:
    loaded = load(f"{write('net = Net(7)')}:net")
    assert loaded.module is not None
    assert loaded.model is loaded.module.net


def test_a_function_over_tensors_is_a_model_where_the_file_has_inputs_for_it(write: Write) -> None:
    write("net = Net()\ndef step(x): return net(x).sum()\nexample_inputs = torch.ones(2, 3)\n")
    loaded = load("model.py:step")
    assert loaded.model(torch.ones(2, 3)).dim() == 0


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("model = Net()", "`model`, a Net"),
        ("net = Net()\nother_name = net", "`net`, a Net"),
        ("net = nn.Sequential(Net())\ninner = net[0]", "`net`, a Sequential"),
        ("net = Net()\ncriterion = nn.MSELoss()\nact = nn.ReLU()", "`net`, a Net"),
        ("net = Net()\nloss = nn.Linear(2, 1)", "`net`, a Net"),
        ("net = Net()\ndef make_model(): return Net()", "`net`, a Net"),
        ("_hidden = Net()", "`Net()`"),
        ("", "`Net()`"),
        ("def make_model(): return Net()", "`Net()`"),
        (
            "class Big(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.net = Net()\n    def forward(self, x):\n        return x",
            "`Big()`",
        ),
        ("class Sub(Net):\n    pass", "`Sub()`"),
        ("class Abstract(nn.Module):\n    pass", "`Net()`"),
        ("class MyLoss(nn.modules.loss._Loss):\n    def forward(self, x): return x", "`Net()`"),
    ],
)
def test_the_only_candidate(write: Write, text: str, want: str) -> None:
    assert load(write(text)).notes == (f"no name was given: the model is {want} in model.py",)


@pytest.mark.parametrize(
    "name", ["make", "make_model", "build_model", "create_tiny_net", "get_model", "load_model", "model", "build_network"]
)
def test_a_factory_is_known_by_its_name(write: Write, name: str) -> None:
    text = f"from torch import nn\n\n\ndef {name}():\n    return nn.Linear(2, 2)\n\n\ndef get_data():\n    return 1\n"
    assert isinstance(load(write(text, head="")).model, nn.Linear)


def test_a_module_that_is_only_imported_is_no_candidate(write: Write) -> None:
    text = "from torch.nn import Linear, ReLU, Identity\n\n\ndef make_model():\n    return Linear(2, 2)\n"
    assert isinstance(load(write(text, head="")).model, nn.Linear)


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("first = Net()\nsecond = Net()", "first (line 14), second (line 15)"),
        ("class Other(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)", "Net (line 5), Other (line 14)"),
    ],
)
def test_several_candidates_are_listed(write: Write, text: str, listed: str) -> None:
    error = error_of(write(text))
    assert error.reason == f"model.py has several models: {listed}"
    assert error.hint == f"name one, as in model.py:{listed.split()[0]}"


def test_several_factories_are_listed(write: Write) -> None:
    error = error_of(write("def make_a(): ...\ndef build_net(): ...\ndef make_model(): ...\n", head=""))
    assert error.reason == "model.py has several models: build_net (line 2), make_model (line 3)"


def test_no_candidate(write: Write) -> None:
    assert error_of(write("x = 1\n", head="")).reason == "there is no model in model.py"


def test_an_argument_that_no_guess_fits_is_named_with_its_class_and_line(write: Write) -> None:
    error = error_of(
        write(head=HEAD.replace("width=3", "width, depth").replace("nn.Linear(width, 2)", "nn.Linear(width.a.b.c, {}[depth])"))
    )
    assert error.reason.startswith("`Net` needs arguments: width, depth; no guess for them ran: the first raised ")
    assert error.hint.startswith("write them as in --arg width=... --arg depth=...")
    assert error.site is not None


# ------------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("nowhere.py", "there is no file nowhere.py"),
        ("no/where.py:Net", "there is no file no/where.py; there is no folder no"),
        ("nowhere.pt2", "there is no file nowhere.pt2"),
        ("two words", "'two words' names no model"),
        ("nowhere", "there is no module `nowhere`"),
        ("no.where:net", "there is no module `no`"),
        ("torch.nowhere:net", "there is no module `torch.nowhere`"),
        (".", ". is a folder without a config.json"),
        ("book.ipynb", "book.ipynb is a notebook"),
        ("w.safetensors", "w.safetensors is weights without a model"),
        ("model.py:", "no name follows the colon of model.py:"),
        ("model.py:Nett", "model.py has no `Nett`"),
        ("model.py:Net.missing", "model.py has no `Net.missing`"),
        ("model.py:torch", "`torch` is of type module, not a model"),
        ("model.py:number", "`number` is of type int, not a model"),
        ("model.py:state", "`state` is a state dict, not a model"),
        ("model.py:Plain", "`Plain` is a class, but not of an nn.Module"),
        ("model.py:tensor", "`tensor()` returns a Tensor, not a model"),
        ("model.py:nothing", "`nothing()` returns a NoneType, not a model"),
        ("model.py:needy", "`needy` needs arguments: x"),
        ("model.py:scripted", "`scripted` is TorchScript, which has no Python lines to name"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_reasons(write: Write, model: str, reason: str) -> None:
    write(
        "number = 1\nstate = Net().state_dict()\nscripted = torch.jit.script(Net())\n\n\nclass Plain:\n    pass\n\n\n"
        "def tensor():\n    return torch.ones(1)\n\n\ndef nothing():\n    pass\n\n\ndef needy(x):\n    return x\n"
    )
    write(name="book.ipynb")
    write(name="w.safetensors")
    error = error_of(model)
    assert error.reason == reason
    assert error.hint


def test_a_name_that_is_nearly_right_is_suggested(write: Write) -> None:
    write("def make_model(): return Net()")
    assert error_of("model.py:make_modle").hint == "did you mean `make_model`?"
    assert error_of("model.py:zzz").hint == "it has Net, make_model"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("x = 1\ny = (\n", 2, "SyntaxError: '(' was never closed"),
        ("def f():\npass\n", 2, "IndentationError: expected an indented block after function definition on line 1"),
        ("\n\nraise ValueError('no data')\n", 3, "running model.py raises ValueError: no data"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", 2, "running model.py raises ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found\n", 1, "running model.py raises ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("from torch import nowhere\n", 1, "running model.py raises ImportError: cannot import name 'nowhere' from 'torch'"),
        ("import sys\nsys.exit(3)\n", 2, "running model.py ends in sys.exit(3)"),
        ("import torch\ntorch.ones(2) @ torch.ones(3)\n", 2, "running model.py raises RuntimeError: inconsistent tensor size"),
    ],
)
def test_a_file_that_does_not_run_gives_the_line(write: Write, text: str, line: int, reason: str) -> None:
    error = error_of(write(text, head=""))
    assert error.reason.startswith(reason)
    assert line_of(error) == line


def test_a_syntax_error_has_its_column(write: Write) -> None:
    error = error_of(write("x = 1\nfoo(1, 2))\n", head=""))
    assert error.site is not None
    assert (error.site.line, error.site.column) == (2, 10)


def test_an_error_in_a_helper_file_is_blamed_there(write: Write) -> None:
    write("\nraise OSError('gone')\n", name="helper.py", head="")
    error = error_of(write("import helper\n", head=""))
    assert error.site is not None
    assert (Path(error.site.file).name, error.site.line) == ("helper.py", 2)


def test_a_factory_that_raises_gives_its_line(write: Write) -> None:
    write("def make_model():\n    return Net(None)\n")
    error = error_of("model.py:make_model")
    assert error.reason.startswith("calling make_model() raises TypeError: ")
    assert line_of(error) == 8  # in Net.__init__, under it only torch


def test_a_relative_import_asks_for_the_dotted_name(write: Write) -> None:
    write(name="package/__init__.py", head="")
    write("from .parts import x\n", name="package/model.py", head="")
    assert "give package.module:name" in error_of("package/model.py").hint


def test_a_missing_module_says_which_python(write: Write) -> None:
    assert sys.executable in error_of(write("import nowhere_to_be_found\n", head="")).hint


def test_an_interrupt_is_not_caught(write: Write) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(write("raise KeyboardInterrupt\n", head=""))


def test_a_module_whose_import_fails_is_not_called_missing(write: Write) -> None:
    write("import nowhere_to_be_found\n", name="broken_module.py", head="")
    error = error_of("broken_module:Net")
    assert error.reason.startswith("importing broken_module raises ModuleNotFoundError")
    assert error.site is not None


# ------------------------------------------------------------------------------------------------------- how a file runs


def test_a_file_runs_as_a_script_would_but_is_not_main(write: Write) -> None:
    text = "import sys\nseen = (__name__ == '__main__', list(sys.argv), sys.path[0], __file__)\n"
    module = load(write(text)).module
    assert module is not None
    assert module.seen == (False, ["model.py"], os.path.realpath("."), os.path.abspath("model.py"))


def test_a_guarded_training_loop_does_not_start(write: Write) -> None:
    assert load(write("if __name__ == '__main__':\n    raise SystemExit('trained')\n")).model is not None


def test_the_system_is_as_before(write: Write) -> None:
    text = "import os, sys\nos.chdir('/')\nsys.path.insert(0, '/tmp/added')\nsys.argv.append('--more')\n"
    before = (os.getcwd(), sys.path[:], sys.argv[:], set(sys.modules))
    load(write(text))
    added = {name for name in set(sys.modules) - before[3] if not name.startswith("_fxgrad_model")}
    assert (os.getcwd(), sys.path, sys.argv, added) == (*before[:3], set())


def test_the_system_is_as_before_after_an_error(write: Write) -> None:
    before = (sys.path[:], sys.argv[:], set(sys.modules))
    error_of(write("import sys\nsys.path.insert(0, '/tmp/added')\n1 / 0\n"))
    assert (sys.path, sys.argv, set(sys.modules)) == before


def test_a_file_imports_what_lies_beside_it(write: Write) -> None:
    write("width = 5\n", name="zoo/beside_the_model.py", head="")
    text = "from beside_the_model import width\nfrom torch import nn\nnet = nn.Linear(width, 2)\n"
    assert load(write(text, name="zoo/model.py", head="")).model.in_features == 5


def test_two_files_with_equally_named_neighbours_get_their_own(write: Write) -> None:
    for folder, width in (("one", 5), ("two", 6)):
        write(f"width = {width}\n", name=f"{folder}/neighbour.py", head="")
        write("import neighbour\nfrom torch import nn\nnet = nn.Linear(neighbour.width, 2)\n", name=f"{folder}/model.py", head="")
    assert [load(f"{folder}/model.py").model.in_features for folder in ("one", "two")] == [5, 6]


def test_a_late_import_in_forward_works_while_loading(write: Write) -> None:
    write("scale = 2\n", name="late_neighbour.py", head="")
    text = "def step(x):\n    from late_neighbour import scale\n    return x * scale\nexample_inputs = (torch.ones(1),)\n"
    with loading(f"{write(text)}:step") as loaded:
        assert loaded.model(torch.ones(1)).item() == 2.0
    assert "late_neighbour" not in sys.modules


def test_classes_of_the_file_can_be_looked_up(write: Write) -> None:
    model = load(write("import dataclasses\n@dataclasses.dataclass\nclass Config:\n    width: int = 3\n")).model
    assert sys.modules[type(model).__module__].Net is type(model)


def test_a_file_named_like_a_package_does_not_replace_it(write: Write) -> None:
    write("from torch import nn\nnet = nn.Linear(2, 2)\n", name="tabulate.py", head="")
    before = importlib.import_module("tabulate")
    load("tabulate.py")
    assert sys.modules["tabulate"] is before


def test_the_file_is_read_in_its_own_encoding(write: Write) -> None:
    Path("latin.py").write_bytes("# -*- coding: latin-1 -*-\nfrom torch import nn\nnäme = nn.Linear(2, 2)\n".encode("latin-1"))
    assert load("latin.py:näme").model.in_features == 2


def test_nothing_is_written_beside_the_file(write: Write) -> None:
    load(write())
    assert os.listdir(".") == ["model.py"]


def test_a_module_is_imported_from_the_current_directory(write: Write) -> None:
    write(name="package_here/__init__.py", head="")
    write("from .parts import width\n\n\ndef tiny():\n    return Net(width)\n", name="package_here/models.py")
    write("width = 9\n", name="package_here/parts.py", head="")
    loaded = load("package_here.models:tiny")
    assert loaded.model.a.in_features == 9
    assert loaded.file == os.path.abspath("package_here/models.py")


def test_an_installed_module(write: Write) -> None:
    assert isinstance(load("torch.nn:ReLU").model, nn.ReLU)


# ------------------------------------------------------------------------------------------------------- what comes along


def loaded_with(write: Write, text: str) -> Loaded:
    return load(write(text))


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("example_inputs = (torch.ones(2, 3),)", 1, []),
        ("example_inputs = [torch.ones(2, 3), 4]", 2, []),
        ("example_inputs = torch.ones(2, 3)", 1, []),
        ("example_inputs = {'x': torch.ones(2, 3)}", 0, ["x"]),
        ("import fxgrad\nexample_inputs = fxgrad.Inputs((1,), {'x': 2})", 1, ["x"]),
        ("def example_inputs():\n    return (torch.ones(2, 3),)", 1, []),
        ("def example_inputs(model):\n    return (torch.ones(2, model.a.in_features),)", 1, []),
        ("def example_inputs(batch=2):\n    return (torch.ones(batch, 3),)", 1, []),
    ],
)
def test_example_inputs(write: Write, text: str, args: int, kwargs: list[str]) -> None:
    inputs = loaded_with(write, text).inputs
    assert isinstance(inputs, Inputs)
    assert (len(inputs.args), list(inputs.kwargs)) == (args, kwargs)


def test_nothing_comes_along_where_nothing_is_defined(write: Write) -> None:
    loaded = loaded_with(write, "")
    assert (loaded.inputs, loaded.loss, loaded.optimizer, loaded.expect) == (None, None, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "def loss(output):\n    return output.sum() * 2",
        "loss = lambda output: output.sum() * 2",
        "class loss(nn.Module):\n    def forward(self, output): return output.sum() * 2",
        "class Twice(nn.modules.loss._Loss):\n    def forward(self, output): return output.sum() * 2\nloss = Twice()",
        "def loss(output, factor=2):\n    return output.sum() * factor",
    ],
)
def test_loss_is_called_with_the_output(write: Write, text: str) -> None:
    loss = load(f"{write(text)}:Net").loss
    assert loss is not None
    assert loss(torch.ones(3)).item() == 6.0


def test_a_loss_that_needs_a_target_is_refused_with_its_line(write: Write) -> None:
    error = error_of(write("def loss(output, target):\n    return output.sum()\n"))
    assert error.reason == "`loss` takes output, target, but a loss is called with the model's output alone"
    assert line_of(error) == 14


def test_a_loss_module_that_needs_a_target_is_refused(write: Write) -> None:
    assert "takes input, target" in error_of(write("loss = nn.CrossEntropyLoss()\n")).reason


@pytest.mark.parametrize(
    "text",
    [
        "net = Net()\noptimizer = torch.optim.SGD(net.parameters(), 0.1)",
        "def optimizer(model):\n    return torch.optim.SGD(model.parameters(), 0.1)",
        "net = Net()\ndef optimizer():\n    return torch.optim.SGD(net.parameters(), 0.1)",
        "net = Net()\ndef optimizer(lr=0.1):\n    return torch.optim.SGD(net.parameters(), lr)",
        "from torch.optim import SGD as optimizer",
    ],
)
def test_optimizer(write: Write, text: str) -> None:
    loaded = loaded_with(write, text)
    assert isinstance(loaded.optimizer, torch.optim.SGD)
    assert loaded.optimizer.param_groups[0]["params"][0] is next(loaded.model.parameters())


def test_several_optimizers_stay_together(write: Write) -> None:
    text = "net = Net()\noptimizer = [torch.optim.SGD([p], 0.1) for p in net.parameters()]"
    assert len(loaded_with(write, text).optimizer) == 2


def test_an_optimizer_of_another_model_is_passed_over(write: Write) -> None:
    write("net = Net()\noptimizer = torch.optim.SGD(net.parameters(), 0.1)\n")
    loaded = load("model.py:Net")
    assert loaded.optimizer is None
    assert "holds another model's parameters: not used" in loaded.notes[0]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("expect = ['a.*', 'b']", ("a.*", "b")),
        ("expect = 'a.*'", ("a.*",)),
        ("expect = {'b', 'a'}", ("a", "b")),
        ("def expect(model):\n    return [n for n, _ in model.named_parameters()]", ("a.weight", "a.bias")),
    ],
)
def test_expect(write: Write, text: str, want: tuple[str, ...]) -> None:
    assert loaded_with(write, text).expect == want


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("loss = torch.ones(1)", "`loss` is of type Tensor, not a function from the model's output to a scalar: not used"),
        ("optimizer = 'adam'", "`optimizer` is of type str, not a torch.optim.Optimizer or a function that returns one: not used"),
        ("expect = 3", "`expect` is of type int, not a list of parameter names or globs: not used"),
        ("example_inputs = 3", "`example_inputs` is of type int, not a tuple, a dict or fxgrad.Inputs: not used"),
    ],
)
def test_what_is_of_the_wrong_kind_is_passed_over_and_noted(write: Write, text: str, note: str) -> None:
    loaded = load(f"{write(text)}:Net")
    assert loaded.notes == (note,)
    assert (loaded.inputs, loaded.loss, loaded.optimizer, loaded.expect) == (None, None, None, None)


def test_an_extra_that_raises_gives_its_line(write: Write) -> None:
    error = error_of(write("def example_inputs():\n    raise OSError('no data')\n"))
    assert error.reason == "calling example_inputs() raises OSError: no data"
    assert line_of(error) == 15


def test_a_factory_may_return_everything_together(write: Write) -> None:
    text = (
        "def make():\n    net = Net()\n"
        "    return {'model': net, 'inputs': (torch.ones(2, 3),), 'loss': lambda out: out.sum(),"
        " 'optimizer': torch.optim.SGD(net.parameters(), 0.1)}\n"
    )
    loaded = load(f"{write(text)}:make")
    assert loaded.inputs is not None
    assert loaded.loss is not None
    assert loaded.optimizer.param_groups[0]["params"][0] is loaded.model.a.weight


# ------------------------------------------------------------------------------------------------------- --loss


@pytest.mark.parametrize(
    ("spec", "output", "want"),
    [
        (".loss", {"Namespace": 3.0}, 3.0),
        ("[0]", (torch.tensor(3.0), 1), 3.0),
        ("[-1]", (1, torch.tensor(3.0)), 3.0),
        ('["logits"]', {"logits": torch.ones(2, 2)}, 4.0),
        ("['logits']", {"logits": torch.ones(2, 2)}, 4.0),
        ("[logits]", {"logits": torch.ones(2, 2)}, 4.0),
        ("[0].T[1]", (torch.tensor([[1.0, 2.0]]),), 2.0),
    ],
)
def test_loss_spec_takes_a_part_of_the_output(write: Write, spec: str, output: Any, want: float) -> None:
    if isinstance(output, dict) and "Namespace" in output:
        output = type("Output", (), {"loss": torch.tensor(output["Namespace"])})()
    assert float(loaded_with(write, "").loss_named(spec)(output)) == want


def test_a_part_is_named_as_it_was_written(write: Write) -> None:
    assert loaded_with(write, "").loss_named(".logits[0]").__qualname__ == "output.logits[0]"


def test_a_part_that_is_not_there_says_what_the_output_is(write: Write) -> None:
    with pytest.raises(FxgradError, match=r"the model's output has no \.logits: a dict has no \.logits"):
        loaded_with(write, "").loss_named(".logits")({})


def test_loss_spec_of_the_models_file_does_not_run_it_again(write: Write) -> None:
    loaded = loaded_with(write, "def total(output):\n    return output.sum()\n")
    assert loaded.module is not None
    assert loaded.loss_named("model.py:total") is loaded.module.total


def test_loss_spec_of_another_file_and_of_a_module(write: Write) -> None:
    loaded = loaded_with(write, "")
    write("def total(output):\n    return output.sum()\n", name="losses.py", head="")
    assert loaded.loss_named("losses.py:total")(torch.ones(3)).item() == 3.0
    assert loaded.loss_named("torch:sum")(torch.ones(3)).item() == 3.0


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("total", "no loss can be made from 'total'"),
        ("model.py:", "no loss can be made from 'model.py:'"),
        ("model.py:missing", "model.py has no `missing`"),
        ("model.py:number", "`number` is of type int, not a function from output to loss"),
        ("torch.nn.functional:mse_loss", "`mse_loss` takes input, target, but a loss is called with the model's output alone"),
        (".loss[", "no part of the output is named '.loss['"),
        ("nowhere:x", "there is no module `nowhere`"),
    ],
)
def test_loss_spec_that_cannot_be_used(write: Write, spec: str, reason: str) -> None:
    loaded = loaded_with(write, "number = 1\n")
    with pytest.raises(LoadError) as caught:
        loaded.loss_named(spec)
    assert caught.value.reason == reason


# ------------------------------------------------------------------------------------------------------- not Python


class Pair(nn.Module):
    """Two inputs, one by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.a(x) * scale
        return result


@pytest.fixture
def exported(tmp_path: Path) -> str:
    program = torch.export.export(Pair(), (torch.ones(2, 3),), {"scale": torch.ones(2)})
    torch.export.save(program, tmp_path / "net.pt2")
    return str(tmp_path / "net.pt2")


def test_an_exported_program_with_its_inputs(exported: str) -> None:
    loaded = load(exported)
    assert [name for name, _ in loaded.model.named_parameters()] == ["a.weight", "a.bias"]
    assert loaded.inputs is not None
    assert (len(loaded.inputs.args), list(loaded.inputs.kwargs)) == (1, ["scale"])
    assert loaded.model(*loaded.inputs.args, **loaded.inputs.kwargs).shape == (2, 2)


def test_a_node_of_an_exported_program_stands_at_the_users_line(exported: str) -> None:
    loaded = load(exported)
    assert loaded.inputs is not None
    loaded.model(*loaded.inputs.args, **loaded.inputs.kwargs)
    forward = loaded.model.forward.__code__
    sites = [site_of((forward, lasti)) for lasti in range(0, len(forward.co_code), 2)]
    lines = {line.strip() for site in sites if site.file == os.path.abspath(__file__) for line in [line_text(site.file, site.line)]}
    assert lines == {"result: torch.Tensor = self.a(x) * scale"}


class Bomb:
    """Unpickling one makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def replaced(archive: str, ending: str, content: bytes) -> None:
    """Put other content in the member of the archive whose name ends so."""
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist()}
    (target,) = [name for name in members if name.endswith(ending)]
    with zipfile.ZipFile(archive, "w") as new:
        for name, old_content in members.items():
            new.writestr(name, content if name == target else old_content)


def bomb(tmp_path: Path) -> bytes:
    torch.save((Bomb(str(tmp_path / "exploded")),), tmp_path / "bomb.pt")
    return (tmp_path / "bomb.pt").read_bytes()


def test_a_pickle_inside_an_exported_program_is_not_loaded(exported: str, tmp_path: Path) -> None:
    replaced(exported, "sample_inputs/model.pt", bomb(tmp_path))
    error = error_of(exported)
    assert error.reason == "net.pt2 is a pickle, and loading one runs the code in it"
    assert "--trust-pickle" in error.hint
    assert not (tmp_path / "exploded").exists()


def test_a_pickled_object_among_the_constants_is_not_loaded(exported: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported, "a") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", pickle.dumps(Bomb(str(tmp_path / "exploded"))))
    assert "is a pickle" in error_of(exported).reason
    assert not (tmp_path / "exploded").exists()


def test_the_environment_is_as_before(exported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    load(exported)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_text("hello")
    assert error_of(str(tmp_path / "net.pt2")).reason.startswith("net.pt2 is not a file of torch.export.save")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("readme", "hello")
    assert error_of(str(tmp_path / "net.pt2")).reason.startswith("torch.export.load('net.pt2') raises ")


def test_a_pickled_model_needs_trust(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(nn.Linear(2, 3), file)
    assert error_of(str(file)).reason == "net.pth is a pickle, and loading one runs the code in it"
    assert load(str(file), trust_pickle=True).model.out_features == 3


def test_a_state_dict_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(nn.Linear(2, 3).state_dict(), file)
    assert error_of(str(file), trust_pickle=True).reason == "net.pth holds a OrderedDict, not a model"
