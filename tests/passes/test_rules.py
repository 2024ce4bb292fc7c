"""What the marks of `tests/cases` cannot say: which rule keeps silent, where a finding stands in an installed package, how loud it is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def test_a_saved_inference_tensor_is_no_write() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                features = self.body(x)
            return self.head(features)

    report = fxgrad.analyze(Frozen(), (torch.randn(2, 3),), loss=lambda out: out.sum())
    assert [f.code for f in report.findings] == ["FXG104"]


def test_in_an_installed_package_the_call_of_the_unread_module_is_named() -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    report = fxgrad.analyze(BertModel(config), {"input_ids": torch.tensor([[2, 5, 7]])}, loss=lambda out: out.last_hidden_state.sum())
    (finding,) = [f for f in report.findings if f.code == "FXG101"]
    assert set(finding.parameters) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert finding.site is not None
    text = Path(finding.site.file).read_text().splitlines()[finding.site.line - 1]
    assert text[finding.site.column - 1 : finding.site.end_column - 1] == "self.pooler(sequence_output)"


def test_a_checkpoint_that_a_library_makes_is_switched_on_by_a_line_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "fxgrad_test_towers.py").write_text(
        "import torch\nfrom torch.utils.checkpoint import checkpoint\n\n\nclass Tower(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.block, self.on = torch.nn.Linear(3, 3), False\n\n"
        "    def gradient_checkpointing_enable(self):\n        self.on = True\n\n"
        "    def forward(self, x):\n        return checkpoint(self.block, x, use_reentrant=True) if self.on else self.block(x)\n"
    )
    (tmp_path / "fxgrad_test_uses_towers.py").write_text(
        "from torch import nn\nfrom fxgrad_test_towers import Tower\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.tower, self.head = Tower(), nn.Linear(3, 1)\n"
        "        self.tower.train()\n        self.tower.gradient_checkpointing_enable()\n\n"
        "    def forward(self, x):\n        return self.head(self.tower(x))\n"
    )
    for folder in (library, tmp_path):
        monkeypatch.syspath_prepend(folder)
    model = importlib.import_module("fxgrad_test_uses_towers").Net()
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
        (found,) = fxgrad.analyze(model, (torch.randn(2, 3),)).findings
    assert found.site is not None
    assert (found.code, Path(found.site.file).name, found.site.line) == ("FXG114", "fxgrad_test_uses_towers.py", 10)


@pytest.mark.parametrize("way", ["layer", "parameter", "container"])
def test_a_line_that_names_the_attribute_is_blamed_before_one_that_sets_any(way: str) -> None:
    """The classes of transformers have a `setattr(self, name, value)`, in a file of their own."""
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertModel(config, add_pooling_layer=False)
    if way == "layer":
        model.extra = nn.Linear(3, 3)
    elif way == "parameter":
        model.embeddings.register_parameter("scale", nn.Parameter(torch.ones(3)))
    else:
        model.heads = nn.ModuleDict()
        model.heads["tag"] = nn.Linear(3, 3)
    report = fxgrad.analyze(model, {"input_ids": torch.tensor([[2, 5, 7]])}, loss=lambda out: out.last_hidden_state.sum())
    (finding,) = [f for f in report.findings if f.code == "FXG101"]
    assert finding.site is not None
    assert finding.site.file == __file__
    text = Path(__file__).read_text().splitlines()[finding.site.line - 1].strip()
    assert (
        text
        == {
            "layer": "model.extra = nn.Linear(3, 3)",
            "parameter": 'model.embeddings.register_parameter("scale", nn.Parameter(torch.ones(3)))',
            "container": "model.heads = nn.ModuleDict()",
        }[way]
    )


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.body(x), self.head.weight)


def test_what_a_filter_forgot_should_train_all_the_same() -> None:
    """The bias is used nowhere and in no group; its module's weight is: nobody left that module alone on purpose."""
    model = TwoHeads()
    optimizer = torch.optim.SGD([p for name, p in model.named_parameters() if name != "head.bias"], lr=0.1)
    report = fxgrad.analyze(model, (torch.randn(2, 3),), loss=lambda out: out.sum(), optimizer=optimizer)
    assert [(f.code, f.severity, f.parameters) for f in report.findings] == [("FXG101", "error", ("head.bias",))]


def test_a_module_left_out_of_the_optimizer_is_left_alone() -> None:
    class Spare(TwoHeads):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x))

    model = Spare()
    optimizer = torch.optim.SGD([*model.body.parameters(), *model.head.parameters()], lr=0.1)
    report = fxgrad.analyze(model, (torch.randn(2, 3),), loss=lambda out: out.sum(), optimizer=optimizer)
    assert not [f for f in report.findings if f.severity == "error"]
    assert report.verdicts["spare.weight"] == "none"


class Leaflets(nn.Module):
    """Writes in place, by `write`; the word in the source says nothing of what is written."""

    def __init__(self, write: str) -> None:
        super().__init__()
        self.leaf_scale, self.body, self.write = nn.Parameter(torch.ones(3)), nn.Linear(3, 3), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        leaf = self.body(x).tanh()
        if self.write == "parameter":
            self.leaf_scale.mul_(2.0)
        elif self.write == "one of several":
            leaf.unbind(0)[0].add_(1.0)
        elif self.write == "saved":
            leaf.add_(1.0)
        elif self.write == "hidden":
            leaf.data.add_(1.0)
        elif self.write == "input":
            x.add_(1.0)
        return (leaf * self.leaf_scale).sum()


@pytest.mark.parametrize(
    ("write", "code", "kind", "step"),
    [
        ("parameter", "FXG202", "leaf", "mul_"),
        ("one of several", "FXG202", "", "add_"),
        ("saved", "FXG201", "overwritten", "add_"),
        ("hidden", "FXG203", "data", "add_"),
        ("input", "FXG204", "", "add_"),
    ],
)
def test_a_finding_about_a_write_names_its_step_and_its_kind(write: str, code: str, kind: str, step: str) -> None:
    report = fxgrad.analyze(Leaflets(write), (torch.randn(2, 3),), options=fxgrad.Options(values="real"))
    found = [f for f in (*report.findings, *report.notes) if f.code == code]
    assert [(f.kind, f.step) for f in found] == [(kind, step)]


def test_an_old_graph_is_a_kind() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 3)
            self.held = self.body(torch.ones(1, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.body(x) * self.held).sum()

    model = Remembers()
    model(torch.randn(2, 3)).backward()
    report = fxgrad.analyze(model, (torch.randn(2, 3),))
    assert [(f.code, f.kind, f.step) for f in report.findings] == [("FXG201", "old graph", "")]


def test_of_two_turns_of_a_condition_the_outcome_of_the_one_that_skips_is_named() -> None:
    class Block(nn.Module):
        def __init__(self, most: float) -> None:
            super().__init__()
            self.body, self.most = nn.Linear(4, 4), most

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.abs().sum().item() < self.most:
                return x + self.body(x)
            return x

    model = nn.Sequential(nn.Linear(4, 4), Block(1e6), Block(-1.0))
    errors = [f for f in fxgrad.analyze(model, (torch.randn(2, 4),)).findings if f.code == "FXG115" and f.severity == "error"]
    assert [f.parameters for f in errors] == [("2.body.weight", "2.body.bias")]
    assert "where it is False (as it is for the example inputs)" in errors[0].message


@pytest.mark.parametrize(
    ("write", "severity"),
    [("h.data[0] += 1", "error"), ("h.data[0, 1:] *= 2", "error"), ("h.detach()[:, 0] -= 1", "warning"), ("w.data[0] *= 0.5", "warning")],
)
def test_one_hidden_augmented_assignment_is_told_once(tmp_path: Path, write: str, severity: str) -> None:
    """Python writes twice for it: into the part, and the part back into its place."""
    path = tmp_path / "augmented.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)\n\n    def forward(self, x):\n        w = self.a.weight\n"
        f"        h = self.a(x){'.exp()' if severity == 'error' else ' + 1'}\n        {write}\n        return self.b(h * 2 if w is None else h).sum()\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    report = fxgrad.analyze(scope["Net"](), (torch.randn(3, 4),))
    found = [finding for finding in report.findings if finding.code == "FXG203"]
    assert [(finding.severity, finding.site.line if finding.site else None) for finding in found] == [(severity, 13)]
    assert f"`{write}`" in found[0].message


@pytest.mark.parametrize(("count", "said"), [(1, "it holds 1 other tensor and none"), (2, "it holds 2 other tensors and none")])
def test_what_an_optimizer_holds_instead_is_counted(count: int, said: str) -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD([torch.zeros(3, requires_grad=True) for _ in range(count)], 0.1)
    (found,) = fxgrad.analyze(model, (torch.randn(3, 4),), optimizer=optimizer).findings
    assert found.code == "FXG301"
    assert said in found.message
