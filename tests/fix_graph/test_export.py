"""`--module DIR`: the exported package in a process that cannot import fxgrad or the model's own file."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import fxgrad
from fxgrad.cli import main
from fxgrad.fix_graph.export.package import export_module
from fxgrad.records.errors import FixError

SCALE = 3.0


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(Block(4), Block(4))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(self.layers(self.stem(x)), 1), 1))


class Tied(nn.Module):
    """Tied weights, buffers that are written and not saved, a keyword-only number, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.unused = nn.Linear(2, 2)
        self.register_buffer("scale", torch.full((8,), 2.0))
        self.register_buffer("passing", torch.rand(8), persistent=False)

    def forward(self, ids: torch.Tensor, *, shift: float = 1.0) -> dict[str, Any]:
        h = torch.exp(self.fc(self.embed(ids)))
        h *= self.scale
        with torch.no_grad():
            self.scale.mul_(0.9)
        return {"logits": self.head(h + self.passing * shift), "parts": (h, [h.sum()])}


class Regions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.frozen = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            target = self.a(x).softmax(-1)
            with torch.enable_grad():
                kept = self.b(x)
            target = target + 1
        y = torch.tanh(self.frozen(kept))
        y.add_(target)
        return (y if mask is None else y.masked_fill(mask, 0.0)), target


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Linear(4, 6))
        self.b = parametrizations.orthogonal(nn.Linear(6, 6))
        self.c = nn.utils.spectral_norm(nn.Linear(6, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.exp(self.a(x))
        y += 1
        return self.c(self.b(y))


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(10, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(10, 2, 16, batch_first=True)
        self.parts = nn.ParameterList([nn.Parameter(torch.randn(10)) for _ in range(2)])
        self.by_name = nn.ParameterDict({"k": nn.Parameter(torch.randn(10))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.rnn(x)[0])
        h.mul_(2)
        h = self.encoder(h + self.attention(h, h, h)[0])
        return h * self.parts[0] + self.parts[1] * self.by_name["k"]


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * SCALE

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * SCALE


@dataclasses.dataclass
class Output:
    y: torch.Tensor
    total: torch.Tensor


class Structured(nn.Module):
    """A dict of inputs, a dataclass out, a function of the user's own, another dtype, a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.low = nn.Linear(4, 4), nn.Linear(4, 4).bfloat16()
        self.fc.register_forward_hook(lambda module, given, made: made * 2)

    def forward(self, x: dict[str, Any], n: int = 2, *rest: Any, flag: bool = True) -> Output:
        y = Scaled.apply(self.fc(x["a"])).sigmoid()
        y[:, 0] = 1.0
        y = y + self.low(x["b"][0].bfloat16()).float() * n
        return Output(y, y.sum())


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Paired(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Pair:
        y = self.fc(x).exp()
        y -= y.mean()
        return Pair(y, y * 2)


class Stored(nn.Module):
    """A store that breaks nothing stays one; a default that is no number; a parameter with strides of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.table = nn.Linear(4, 4), nn.Parameter(torch.arange(12.0).view(3, 4).t())

    def forward(self, x: torch.Tensor, fill: float = float("nan")) -> torch.Tensor:
        y = self.fc(x).exp()
        y[..., :2] = fill if fill == fill else 0.5
        y[[0, 1], 3] += 2
        return y * self.table.as_strided((4,), (1,))


def bert() -> tuple[nn.Module, Any]:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32}
    config = transformers.BertConfig(vocab_size=50, attn_implementation="eager", **small)
    model = transformers.BertForSequenceClassification(config)
    return model, {"input_ids": torch.randint(0, 50, (2, 7)), "labels": torch.tensor([0, 1])}


PROGRAMS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "resnet": lambda: (ResNet(), (torch.randn(4, 3, 8, 8),)),
    "evaluated": lambda: (ResNet().eval(), (torch.randn(4, 3, 8, 8),)),
    "tied": lambda: (Tied(), {"ids": torch.randint(0, 20, (2, 5)), "shift": 2.0}),
    "regions": lambda: (Regions(), (torch.randn(3, 4), torch.rand(3, 4) > 0.5)),
    "normed": lambda: (Normed(), (torch.randn(3, 4),)),
    "sequences": lambda: (Sequences(), (torch.randn(2, 3, 4),)),
    "structured": lambda: (Structured(), ({"a": torch.randn(3, 4), "b": [torch.randn(3, 4)]},)),
    "paired": lambda: (Paired(), (torch.randn(3, 4),)),
    "stored": lambda: (Stored(), (torch.randn(3, 4),)),
    "bert": bert,
}

# Common to both sides: one step, and everything that can be compared afterwards.
STEP = """
def leaves(item):
    if isinstance(item, torch.Tensor):
        return [item]
    if isinstance(item, dict):
        item = list(item.values())
    elif not isinstance(item, (list, tuple)):
        item = list(vars(item).values()) if hasattr(item, "__dict__") else []
    return [leaf for part in item for leaf in leaves(part)]

def step(model, args, kwargs):
    torch.manual_seed(3)
    output = model(*args, **kwargs)
    loss = sum((leaf * torch.arange(leaf.numel()).view_as(leaf)).sum() for leaf in leaves(output) if leaf.requires_grad)
    loss.backward()
    return {
        "keys": list(model.state_dict()),
        "type": type(output).__name__,
        "outputs": [leaf.detach() for leaf in leaves(output)],
        "gradients": {name: p.grad for name, p in model.named_parameters(remove_duplicate=False)},
        "buffers": dict(model.named_buffers()),
        "trains": {name: p.requires_grad for name, p in model.named_parameters()},
        "tied": [[a is b for b in model.parameters()] for a in model.parameters()],
    }
"""

FRESH = (
    """
import importlib.abc, pathlib, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fxgrad", "tests") or name == "test_mend_export":
            raise ImportError(f"{name} is blocked here")
sys.meta_path.insert(0, Blocked())
import torch
"""
    + STEP
    + """
folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
for name in sys.argv[2:]:
    package = __import__(name)
    args, kwargs = torch.load(folder / f"{name}.inputs", weights_only=True)
    torch.save(step(package.load(), args, kwargs), folder / f"{name}.found")
"""
)


def split(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((), inputs) if isinstance(inputs, dict) else (inputs, {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All programs exported, and one fresh process that ran them."""
    place = tmp_path_factory.mktemp("exported")
    for name, make in PROGRAMS.items():
        torch.manual_seed(0)
        model, inputs = make()
        state = torch.random.get_rng_state()
        export_module(fxgrad.fix(model, inputs).module, inputs, place / name)
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.save(split(inputs), place / f"{name}.inputs")
    run = subprocess.run([sys.executable, "-I", "-c", FRESH, str(place), *PROGRAMS], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return place


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_fresh_process_without_fxgrad_computes_the_same(name: str, folder: Path) -> None:
    found = torch.load(folder / f"{name}.found", weights_only=False)
    torch.manual_seed(0)
    model, inputs = PROGRAMS[name]()
    scope: dict[str, Any] = {"torch": torch}
    exec(STEP, scope)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        want = scope["step"](model, *split(inputs))
    for key in ("keys", "type", "trains", "tied"):
        assert found[key] == want[key], key
    torch.testing.assert_close(found["outputs"], want["outputs"])
    torch.testing.assert_close(found["buffers"], want["buffers"])
    assert found["gradients"].keys() == want["gradients"].keys()
    for parameter, gradient in want["gradients"].items():
        torch.testing.assert_close(found["gradients"][parameter], gradient, msg=lambda text, name=parameter: f"{name}: {text}")


def test_the_code_is_readable(folder: Path) -> None:
    text = (folder / "regions" / "__init__.py").read_text()
    body = text[text.index("    def forward") : text.index("def load")].rstrip()
    assert "\n".join(line.replace("test_export.py:", "").partition(": ")[0] for line in body.splitlines()).count("# ") == 6
    start = body.index("        with torch.no_grad()")
    number = next(i for i, line in enumerate(Path(__file__).read_text().splitlines(), 1) if "target = self.a(x).softmax(-1)" in line)
    assert body[start:].splitlines() == [
        "        with torch.no_grad():",
        f"            # test_export.py:{number}: target = self.a(x).softmax(-1)",
        "            a = self.a(x)",
        "            softmax = a.softmax(-1)",
        f"        # test_export.py:{number + 2}: kept = self.b(x)",
        "        b = self.b(x)",
        "        with torch.no_grad():",
        f"            # test_export.py:{number + 3}: target = target + 1",
        "            add = softmax.add(1)",
        f"        # test_export.py:{number + 4}: y = torch.tanh(self.frozen(kept))",
        "        frozen = self.frozen(b)",
        "        tanh = torch.tanh(frozen)",
        f"        # test_export.py:{number + 5}: y.add_(target)",
        "        add_1 = tanh.add(add)",
        f"        # test_export.py:{number + 6}: return (y if mask is None else y.masked_fill(mask, 0.0)), target",
        "        masked_fill = add_1.masked_fill(mask, 0.0)",
        "        return (masked_fill, add)",
    ]


def test_layers_are_built_by_their_own_calls(folder: Path) -> None:
    text = (folder / "sequences" / "__init__.py").read_text()
    assert "nn.LSTM(4, 5" in text
    assert "nn.MultiheadAttention(embed_dim=10, " in text


def test_what_else_the_package_needs_is_said(folder: Path) -> None:
    first = {name: (folder / name / "__init__.py").read_text().splitlines()[0] for name in ("tied", "bert")}
    assert first["tied"].endswith('Needs only torch."""')
    assert first["bert"].endswith('Needs torch and transformers."""')


def test_each_part_is_in_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.0)))
    net[1][0].eval()
    export_module(fxgrad.fix(net, (torch.rand(4, 3),)).module, (torch.rand(4, 3),), tmp_path / "modes")
    monkeypatch.syspath_prepend(str(tmp_path))
    modes = {name: part.training for name, part in __import__("modes").load().named_modules()}
    assert {name: modes[name] for name, _ in net.named_modules()} == {name: part.training for name, part in net.named_modules()}


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [("tied", torch.zeros(1, 2, dtype=torch.long), "made for shift=2.0"), ("regions", torch.zeros(3, 4), "made for calls with mask")],
)
def test_another_call_than_the_exported_one_is_refused(
    name: str, given: torch.Tensor, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    model = __import__(name).load()
    with pytest.raises(ValueError, match=words):
        model(given)


# -------------------------------------------------------------------------------------------------- what its text does not say


class Rated(torch.autograd.Function):
    rate = 2.0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * Rated.rate

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * Rated.rate


Rated.rate = 5.0  # after the text that is copied


def times(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    return x * factor


times.__defaults__ = (7.0,)


class OnlyBackward(torch.autograd.Function):
    """The forward is what its text says, the gradient is not."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 7.0

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return times(gradients[0])


halved = torch.nn.functional.max_pool1d  # which torch makes in a function


class Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return halved(x, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0].repeat_interleave(2, 1)


@dataclasses.dataclass
class Doubled:
    y: torch.Tensor

    def __post_init__(self) -> None:
        self.y = self.y * 2


@torch.library.custom_op("fxgrad_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


twice.register_autograd(lambda ctx, gradient: gradient * 2)


class Ending(nn.Module):
    """A layer, and how the forward ends."""

    def __init__(self, ending: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.ending = nn.Linear(4, 4), ending

    def forward(self, x: torch.Tensor) -> Any:
        y = self.fc(x).exp()
        y += 1
        return self.ending(y)


OTHERWISE = "the package would not do what the module does: "
NOT_ALONE = "the package would not run in a process of its own: "


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Rated.apply, f"{OTHERWISE}output 0: differs by"),
        (OnlyBackward.apply, f"{OTHERWISE}gradient of fc.weight: differs by"),
        (Doubled, f"{OTHERWISE}output 0: differs by"),
        (torch.ops.fxgrad_tests.twice, f"{NOT_ALONE}AttributeError: "),
        (Pooled.apply, "which no file can name"),
    ],
    ids=["class attribute", "default, in backward alone", "post init", "operator of the program", "function without a name"],
)
def test_a_package_that_does_otherwise_is_not_written(ending: Callable[[torch.Tensor], Any], reason: str, tmp_path: Path) -> None:
    model, inputs = Ending(ending), (torch.randn(3, 4),)
    module = fxgrad.fix(model, inputs).module
    with pytest.raises(FixError, match=reason):
        export_module(module, inputs, tmp_path / "above" / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_package_stays_where_the_next_is_refused(tmp_path: Path) -> None:
    exported(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    model, inputs = Ending(Doubled), (torch.randn(3, 4),)
    with pytest.raises(FixError, match=OTHERWISE):
        export_module(fxgrad.fix(model, inputs).module, inputs, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    pair: Pair
    name: str = "training"


class OfBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, batch: Batch, scale: float = 2.0) -> torch.Tensor:
        y = self.fc(batch.x).exp()
        y += batch.pair.first * scale
        return y * batch.pair.second


def test_inputs_of_the_programs_own_classes_are_tried(tmp_path: Path) -> None:
    inputs = (Batch(torch.randn(3, 4), Pair(torch.randn(3, 4, requires_grad=True), torch.randn(4))),)
    files = export_module(fxgrad.fix(OfBatch(), inputs).module, inputs, tmp_path / "out")
    assert " = batch.pair.second\n" in files[0].read_text()
    assert inputs[0].pair.first.grad is None


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Any, target: Any) -> None:
        target.write(source.read(1))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(FixError, match="cannot write .*: No space left on device"):
        exported(tmp_path / "above" / "out")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ the command line

NET = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        y = self.act(self.fc(x))
        z = torch.exp(y)
        z += 1
        with torch.no_grad():
            self.seen.add_(1)
        z[0] = 0
        return z

def example_inputs():
    return (torch.ones(2, 4),)
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def test_module_writes_a_package_and_leaves_the_file(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", "net.py", "--module", "mended"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[1].startswith("net.py:14:9: `add_` out of place (functional): it overwrites what `exp` (")
    assert "outputs and 2 gradients equal eager, with a copy of everything saved for backward: largest difference 0" in err
    assert (net / "net.py").read_text() == NET
    text = (net / "mended" / "__init__.py").read_text()
    assert "act = self.act(fc)" in text
    assert main(["fix", "net.py", "--module", "mended", "--all"]) == 0  # again, into the same folder
    text = (net / "mended" / "__init__.py").read_text()
    assert ("act = self.act(fc)" in text, "select_scatter" in text) == (False, True)


def test_errors_that_no_rewriting_mends_count(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (net / "net.py").write_text(
        NET.replace("self.fc(x)", "self.fc(x).detach()").replace("self.fc = ", "self.other = nn.Linear(4, 4)\n        self.fc = ")
    )
    (net / "net.py").write_text((net / "net.py").read_text().replace("return z", "return z + self.other(x)"))
    assert main(["fix", "net.py", "--module", "mended"]) == 1
    assert "not mended: FXG103" in capsys.readouterr().err
    assert main(["fix", "net.py", "--module", "mended", "--ignore", "FXG103"]) == 0


def test_module_excludes_write_and_diff(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", "net.py", "--module", "mended", "--write"]) == 2
    assert main(["fix", "net.py", "--module", "mended", "--diff"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused_in_a_line(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (net / "branching.py").write_text(NET.replace("z[0] = 0", "z = z if z.sum() > 0 else z * 2"))
    (net / "closing.py").write_text(
        NET.replace("z[0] = 0", "z = torch.utils.checkpoint.checkpoint(lambda t: t * 2, z, use_reentrant=False)").replace(
            "import torch\n", "import torch, torch.utils.checkpoint\n", 1
        )
    )
    (net / "full").mkdir()
    (net / "full" / "mine.txt").write_text("mine")
    wanted = {
        ("branching.py", "out"): "branching.py:17:18: the program takes a branch on the value of a tensor",
        ("closing.py", "out"): "which no file can",
        ("net.py", "full"): "full holds something else (give a folder that does not exist yet, or is empty)",
        ("net.py", "net.py"): "net.py is a file",
    }
    for (model, folder), text in wanted.items():
        assert main(["fix", model, "--module", folder]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert text in err
    assert not (net / "out").exists()


def test_all_in_source_mends_what_breaks_nothing_too(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", "net.py", "--all"]) == 1
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line[0] in "+-@"][2:] == [
        "@@ -5,15 +5,15 @@ all safe, FXG201 safe",
        "-        self.act = nn.ReLU(inplace=True)",
        "+        self.act = nn.ReLU(inplace=False)",
        "-        z += 1",
        "+        z = z + 1",
        "-            self.seen.add_(1)",
        "+            self.seen = self.seen.add(1)",
    ]
    assert err.endswith("Fixed 3, remaining 0.\n")
    assert main(["fix", "net.py", "--all", "--write"]) == 0
    capsys.readouterr()
    assert main(["fix", "net.py", "--all"]) == 0
    assert capsys.readouterr().out == ""


def test_a_copy_keeps_what_the_graph_does_not_use() -> None:
    model = Tied()
    made = fxgrad.fix(model, {"ids": torch.zeros(1, 2, dtype=torch.long)}, copy=True).module
    assert list(made.state_dict()) == list(model.state_dict())
    named = dict(made.named_parameters(remove_duplicate=False))
    assert named["head.weight"] is named["embed.weight"]
    assert named["head.weight"] is not model.head.weight
    assert type(made).__name__ == "Tied"


def test_only_what_fxgrad_made_can_be_exported(tmp_path: Path) -> None:
    with pytest.raises(FixError, match="only a module that fxgrad made"):
        export_module(torch.fx.symbolic_trace(nn.Linear(2, 2)), (torch.ones(1, 2),), tmp_path / "out")


def exported(folder: Path) -> tuple[Path, ...]:
    inputs = (torch.ones(1, 2),)
    return export_module(fxgrad.fix(nn.Linear(2, 2), inputs).module, inputs, folder)


def test_a_program_without_tensors_of_its_own(tmp_path: Path) -> None:
    class Ramp(nn.Module):
        def forward(self, times: int) -> torch.Tensor:
            return torch.arange(3.0) * times

    export_module(fxgrad.fix(Ramp(), (2,)).module, (2,), tmp_path / "ramp")
    assert (tmp_path / "ramp" / "__init__.py").is_file()


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    exported(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    files = exported(tmp_path / "out")
    assert sorted(file.name for file in files) == ["__init__.py", "state.pt"]
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def a_checkpoint(folder: Path) -> Path:
    """A folder that only looks like an export."""
    folder.mkdir()
    (folder / "__init__.py").write_text("mine = 1")
    (folder / "state.pt").write_text("mine")
    return folder / "state.pt"


def trained_on(folder: Path) -> Path:
    """Weights saved where the package reads its own."""
    exported(folder)
    torch.save({"weight": torch.ones(2, 2)}, folder / "state.pt")
    return folder / "state.pt"


def edited(folder: Path) -> Path:
    """The exported text, changed by hand."""
    exported(folder)
    with (folder / "__init__.py").open("a") as stream:
        stream.write("\n\nmine = 1\n")
    return folder / "__init__.py"


def layers_of_others(folder: Path) -> Path:
    """A file under a name that an export may take, which that export did not write."""
    exported(folder)
    (folder / "layers.pt").write_text("mine")
    return folder / "layers.pt"


def a_mark_of_others(folder: Path) -> Path:
    folder.mkdir()
    (folder / "fxgrad.json").write_text('{"reports": 3}')
    return folder / "fxgrad.json"


@pytest.mark.parametrize("made", [a_checkpoint, trained_on, edited, layers_of_others, a_mark_of_others])
def test_what_fxgrad_did_not_write_is_kept(tmp_path: Path, made: Callable[[Path], Path]) -> None:
    file = made(tmp_path / "out")
    before = file.read_bytes()
    with pytest.raises(FixError, match=r"holds something else|is not as fxgrad wrote it"):
        exported(tmp_path / "out")
    assert file.read_bytes() == before
