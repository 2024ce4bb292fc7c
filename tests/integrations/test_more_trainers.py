"""The callbacks for Accelerate, Ignite, skorch, fastai and Keras, each with the real trainer on a tiny model, and the first
step's verdicts in TensorBoard and Weights & Biases. Those that are not in the `test` extra are skipped where they are not
installed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.integrations import GradientsMissing
from fxgrad.integrations.loggers import to_tensorboard, to_wandb

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self, broken: str = "") -> None:
        super().__init__()
        self.body, self.head, self.broken = nn.Linear(3, 4), nn.Linear(4, 1), broken

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x).sigmoid()
        if self.broken == "detach":
            h = h.detach()  # the cut
        if self.broken == "inplace":
            h += 1  # the write
        return self.head(h)


def loader() -> Any:
    data = torch.utils.data.TensorDataset(torch.randn(16, 3), torch.randn(16, 1))
    return torch.utils.data.DataLoader(data, batch_size=4)


def ignite(net: nn.Module, **options: Any) -> Any:
    engine = pytest.importorskip("ignite.engine", reason="pytorch-ignite is not installed")
    from fxgrad.integrations.ignite import GradientFlow

    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    trainer = engine.create_supervised_trainer(net, optimizer, nn.functional.mse_loss)
    handler = GradientFlow(net, optimizer, **options)
    handler.attach(trainer)
    yield handler
    trainer.run(loader(), max_epochs=1)


def skorch(net: nn.Module, **options: Any) -> Any:
    package = pytest.importorskip("skorch", reason="skorch is not installed")
    from fxgrad.integrations.skorch import GradientFlow

    callback = GradientFlow(**options)
    yield callback
    trainer = package.NeuralNetRegressor(
        net, max_epochs=1, train_split=None, callbacks=[("gradients", callback)], callbacks__print_log=None
    )
    trainer.fit(torch.randn(16, 3).numpy(), torch.randn(16, 1).numpy())


def accelerate(net: nn.Module, **options: Any) -> Any:
    package = pytest.importorskip("accelerate", reason="Accelerate is not installed")
    from fxgrad.integrations.accelerate import watch_first_step

    accelerator = package.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer, data = accelerator.prepare(net, torch.optim.SGD(net.parameters(), 0.1), loader())
    first = watch_first_step(accelerator, model, optimizer, **options)
    yield first
    for x, y in data:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.mse_loss(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
    first.conclude()


def fastai(net: nn.Module, **options: Any) -> Any:
    learner = pytest.importorskip("fastai.learner", reason="fastai is not installed")
    import fastai.callback.progress  # noqa: F401  # it is what gives a learner `no_bar`
    from fastai.data.core import DataLoaders

    from fxgrad.integrations.fastai import GradientFlow

    callback = GradientFlow(**options)
    yield callback
    trainer = learner.Learner(DataLoaders(loader(), loader()), net, nn.MSELoss(), cbs=[callback])
    with trainer.no_bar(), trainer.no_logging():
        trainer.fit(1, 0.1)


TRAINERS: dict[str, Callable[..., Any]] = {
    "ignite": ignite,
    "skorch": skorch,
    "accelerate": accelerate,
    "fastai": fastai,
}


def train(name: str, net: nn.Module, **options: Any) -> Any:
    """Train, and give what keeps the report, also where the training raises."""
    steps = TRAINERS[name](net, **options)
    kept = next(steps)
    try:
        next(steps, None)
    except Exception as error:
        error.kept = kept  # type: ignore[attr-defined]
        raise
    return kept


@pytest.mark.parametrize("name", TRAINERS)
def test_a_healthy_model_is_quiet(name: str) -> None:
    kept = train(name, Net())
    assert kept.report.findings == ()
    assert set(kept.report.verdicts) == {"body.weight", "body.bias", "head.weight", "head.bias"}
    assert set(kept.report.verdicts.values()) == {"flows"}
    assert not torch.overrides._get_current_function_mode_stack()


def blamed(report: fxgrad.Report, code: str) -> str:
    """The source line that the report blames under a code."""
    site = next(f.site for f in report.findings if f.code == code)
    assert site is not None
    return Path(site.file).read_text().splitlines()[site.line - 1]


@pytest.mark.parametrize("name", TRAINERS)
def test_it_raises_before_the_first_update(name: str) -> None:
    net = Net("detach")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(GradientsMissing) as raised:
        train(name, net)
    assert blamed(raised.value.report, "FXG103").endswith("# the cut")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("name", TRAINERS)
def test_it_warns_once_and_trains_on(name: str) -> None:
    net = Net("detach")
    before = net.head.weight.detach().clone()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(name, net, on_error="warn")
    assert [w.category for w in caught if "FXG103" in str(w.message)] == [fxgrad.FxgradWarning]
    assert not torch.equal(net.head.weight, before)


# ------------------------------------------------------------------------------------------------------------------ Keras


def keras_model(cut: bool) -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras runs on another backend")

    class Cut(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x.detach()  # the cut

    layers = [keras.layers.Dense(4), *([Cut()] if cut else []), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(optimizer="sgd", loss="mse")
    return model


def fit(model: Any, callback: Any) -> None:
    model.fit(torch.randn(16, 3), torch.randn(16, 1), batch_size=4, verbose=0, callbacks=[callback])


def test_keras_is_quiet_on_a_healthy_model() -> None:
    model = keras_model(cut=False)
    from fxgrad.integrations.keras import GradientFlow

    callback = GradientFlow()
    fit(model, callback)
    assert callback.report is not None
    assert callback.report.findings == ()
    assert set(callback.report.verdicts.values()) == {"flows"}
    assert "apply" not in vars(model.optimizer)


def test_keras_raises_before_the_first_update() -> None:
    model = keras_model(cut=True)
    from fxgrad.integrations.keras import GradientFlow

    before = [torch.as_tensor(weight.value.detach().clone()) for weight in model.weights]
    with pytest.raises(GradientsMissing) as raised:
        fit(model, GradientFlow())
    assert blamed(raised.value.report, "FXG103").endswith("# the cut")
    assert all(torch.equal(weight.value, old) for weight, old in zip(model.weights, before, strict=True))


# ---------------------------------------------------------------------------------------------------------------- loggers


def broken() -> fxgrad.Report:
    return fxgrad.analyze(Net("detach"), torch.randn(2, 3))


def test_tensorboard_has_the_counts_and_the_report(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        to_tensorboard(broken(), writer, step=3)
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    scalars = {name: found.Scalars(name)[0] for name in found.Tags()["scalars"]}
    assert {name: event.value for name, event in scalars.items()} == {
        "fxgrad/flows": 2,
        "fxgrad/zero": 0,
        "fxgrad/none": 2,
        "fxgrad/branch": 0,
        "fxgrad/blocked": 0,
        "fxgrad/errors": 1,
    }
    assert scalars["fxgrad/flows"].step == 3
    text = found.Tensors("fxgrad/report/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "FXG103 detached-path" in text


def test_wandb_has_the_counts_and_the_report(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    with wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True)) as run:
        to_wandb(broken(), run)
        summary = dict(run.summary)
    assert (summary["fxgrad/flows"], summary["fxgrad/none"], summary["fxgrad/errors"]) == (2, 2, 1)
    assert "FXG103 detached-path" in summary["fxgrad/report"]
