"""The callbacks for Lightning and Transformers, each with the real trainer on a tiny model."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fxgrad.integrations import GradientsMissing

pytestmark = pytest.mark.filterwarnings("ignore")


def line(report: Any, code: str) -> str:
    """The source line that the report blames under a code."""
    site = next(f.site for f in report.findings if f.code == code)
    return Path(site.file).read_text().splitlines()[site.line - 1]


def batches() -> Any:
    data = torch.utils.data.TensorDataset(torch.randn(16, 3), torch.randn(16, 1))
    return torch.utils.data.DataLoader(data, batch_size=4)


# ---------------------------------------------------------------------------------------------------------------- Lightning


def lightning_parts() -> tuple[Any, Any]:
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    from fxgrad.integrations.lightning import GradientFlow

    return lightning, GradientFlow


def fit(module: Any, callback: Any, **options: Any) -> None:
    lightning, _ = lightning_parts()
    quiet: dict[str, Any] = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    lightning.Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **quiet, **options).fit(module, batches())


def regression(broken: str = "") -> Any:
    lightning, _ = lightning_parts()

    class Regression(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            h = torch.sigmoid(self.body(x))
            if broken == "detach":
                h = h.detach()  # the cut
            if broken == "inplace":
                h += 1  # the write
            loss = (self.head(h) - y).pow(2).mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    return Regression()


def test_lightning_is_quiet_on_a_healthy_module() -> None:
    _, GradientFlow = lightning_parts()
    module, callback = regression(), GradientFlow()
    fit(module, callback)
    assert callback.report.findings == ()
    assert set(callback.report.verdicts) == {"body.weight", "body.bias", "head.weight", "head.bias"}
    assert not torch.overrides._get_current_function_mode_stack()


def test_lightning_raises_before_the_first_update() -> None:
    _, GradientFlow = lightning_parts()
    module, callback = regression("detach"), GradientFlow()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    with pytest.raises(GradientsMissing) as raised:
        fit(module, callback)
    assert line(raised.value.report, "FXG103").endswith("# the cut")
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters())
    assert not torch.overrides._get_current_function_mode_stack()


def test_lightning_warns_and_trains_on() -> None:
    _, GradientFlow = lightning_parts()
    module, callback = regression("detach"), GradientFlow(on_error="warn")
    before = module.head.weight.detach().clone()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, callback)
    assert sum("FXG103" in str(w.message) for w in caught) == 1
    assert not torch.equal(module.head.weight, before)


def test_lightning_explains_an_error_of_the_step() -> None:
    _, GradientFlow = lightning_parts()
    callback = GradientFlow()
    with pytest.raises(RuntimeError, match="inplace") as raised:
        fit(regression("inplace"), callback)
    assert line(callback.report, "FXG201").endswith("# the write")
    assert any("FXG201" in note for note in raised.value.__notes__)


def test_lightning_with_accumulation_and_clipping() -> None:
    _, GradientFlow = lightning_parts()
    callback = GradientFlow()
    fit(regression(), callback, accumulate_grad_batches=2, gradient_clip_val=1.0)
    assert set(callback.report.verdicts.values()) == {"flows"}


def test_lightning_with_two_optimizers_by_hand() -> None:
    lightning, GradientFlow = lightning_parts()

    class Gan(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.critic = nn.Linear(2, 3), nn.Linear(3, 1)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            first, second = self.optimizers()
            fake = self.generator(torch.randn(4, 2))
            self.toggle_optimizer(first)
            first.zero_grad()
            self.manual_backward(self.critic(fake.detach()).mean() - self.critic(batch[0]).square().mean())
            first.step()
            self.untoggle_optimizer(first)
            self.toggle_optimizer(second)
            second.zero_grad()
            self.manual_backward(-self.critic(fake).mean())
            second.step()
            self.untoggle_optimizer(second)

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.critic.parameters(), 0.1), torch.optim.SGD(self.generator.parameters(), 0.1)]

    callback = GradientFlow()
    fit(Gan(), callback)
    assert [f for f in callback.report.findings if f.severity == "error"] == []
    assert callback.report.verdicts["generator.weight"] == "flows"
    assert callback.report.verdicts["critic.weight"] == "flows"


# ---------------------------------------------------------------------------------------------------------------- Transformers


class Classifier(nn.Module):
    """What a Trainer needs of a model: a `loss` in its output."""

    def __init__(self, broken: str = "") -> None:
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.broken = broken

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.hidden(self.embed(input_ids).mean(1)).sigmoid()
        if self.broken == "no_grad":
            with torch.no_grad():  # the region
                h = self.hidden(h)
        if self.broken == "inplace":
            h *= 2  # the write
        logits = self.out(h)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(model: nn.Module, callback: Any, folder: Path, **options: Any) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    data = [{"input_ids": torch.randint(0, 9, (5,)), "labels": torch.tensor(i % 2)} for i in range(16)]
    quiet: dict[str, Any] = dict(report_to=[], disable_tqdm=True, logging_strategy="no", save_strategy="no", use_cpu=True)
    arguments = transformers.TrainingArguments(str(folder), per_device_train_batch_size=4, num_train_epochs=1, **quiet, **options)
    transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[callback]).train()


def callback_of(**options: Any) -> Any:
    pytest.importorskip("transformers")
    from fxgrad.integrations.transformers import GradientFlowCallback

    return GradientFlowCallback(**options)


def test_transformers_is_quiet_on_a_healthy_model(tmp_path: Path) -> None:
    callback = callback_of()
    train(Classifier(), callback, tmp_path, gradient_accumulation_steps=2)
    assert callback.report.findings == ()
    assert set(callback.report.verdicts.values()) == {"flows"}
    assert not torch.overrides._get_current_function_mode_stack()


def test_transformers_raises_before_the_first_update(tmp_path: Path) -> None:
    model, callback = Classifier("no_grad"), callback_of()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with pytest.raises(GradientsMissing) as raised:
        train(model, callback, tmp_path)
    assert line(raised.value.report, "FXG104").endswith("# the region")
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_transformers_warns_and_trains_on(tmp_path: Path) -> None:
    model, callback = Classifier("no_grad"), callback_of(on_error="warn")
    before = model.out.weight.detach().clone()
    train(model, callback, tmp_path)
    assert not callback.report.ok
    assert not torch.equal(model.out.weight, before)


def test_transformers_explains_an_error_of_the_step(tmp_path: Path) -> None:
    callback = callback_of()
    with pytest.raises(RuntimeError, match="inplace") as raised:
        train(Classifier("inplace"), callback, tmp_path)
    assert line(callback.report, "FXG201").endswith("# the write")
    assert any("FXG201" in note for note in raised.value.__notes__)
    assert not torch.overrides._get_current_function_mode_stack()


# ---------------------------------------------------------------------------------------------------------------- without them


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_missing_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    for missing in ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks", "transformers"):
        monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, f"fxgrad.integrations.{name}", raising=False)
    with pytest.raises(ImportError, match=f"fxgrad.integrations.{name} needs .*pip install"):
        importlib.import_module(f"fxgrad.integrations.{name}")
