"""A draw by `sample()` that cuts a part of a gradient: a note of FXG105 at the draw, and nothing where the draw is meant to have no history."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.watching.script import run_script

SCRIPT = """import torch
import torch.nn.functional as F
from torch import distributions as D, nn

torch.manual_seed(0)
enc, dec, head = nn.Linear(4, 4), nn.Linear(2, 4), nn.Linear(6, 1)
opt = torch.optim.Adam([*enc.parameters(), *dec.parameters(), *head.parameters()])
unit = D.Normal(torch.zeros(8, 2), torch.ones(8, 2))
for step in range(3):
    x = torch.randn(8, 4)
    mean, width = enc(x).chunk(2, 1)
    q = D.Normal(mean, F.softplus(width))
    rest = head(torch.cat([x, torch.randn(8, 2)], 1)).square().mean()
    {loss}
    opt.zero_grad(); (loss + rest).backward(); opt.step()
"""
GUILTY = {
    "a closed divergence": "loss = F.mse_loss(dec(q.sample()), x) + D.kl_divergence(q, unit).mean()",
    "a divergence written out": "z = q.sample(); loss = F.mse_loss(dec(z), x) - (1 + width - mean**2 - width.exp()).mean()",
    "a draw of several": "z = q.sample((3,)).mean(0); loss = F.mse_loss(dec(z), x) - q.entropy().mean()",
    "a log-normal": "q = D.LogNormal(mean, F.softplus(width)); z = q.sample(); loss = F.mse_loss(dec(z), x) + mean.square().mean()",
    "a gamma": "q = D.Gamma(F.softplus(mean) + 1, F.softplus(width) + 1); loss = F.mse_loss(dec(q.sample()), x) - q.entropy().mean()",
    "a Laplace": "q = D.Laplace(mean, F.softplus(width)); loss = F.mse_loss(dec(q.sample()), x) - q.entropy().mean()",
    "a uniform": "q = D.Uniform(mean, mean + F.softplus(width)); loss = F.mse_loss(dec(q.sample()), x) - q.entropy().mean()",
    "a normal of several variables": (
        "q = D.MultivariateNormal(mean, torch.diag_embed(F.softplus(width))); loss = F.mse_loss(dec(q.sample()), x) + mean.mean()"
    ),
    "of others": "q = D.StudentT(F.softplus(mean) + 2, width); loss = F.mse_loss(dec(q.sample()), x) - q.entropy().mean()",
    "of a base": "q = D.Gumbel(mean, F.softplus(width)); loss = F.mse_loss(dec(q.sample()), x) - q.entropy().mean()",
    "a relaxed one, its logits used": (
        "l = mean + width; q = D.RelaxedBernoulli(torch.tensor(0.5), logits=l); loss = F.mse_loss(dec(q.sample()), x) + l.square().mean()"
    ),
    "a wrapped one": (
        "q = D.Independent(D.Cauchy(mean, F.softplus(width)), 1); loss = F.mse_loss(dec(q.sample()), x) - q.entropy().mean()"
    ),
}
QUIET = {
    "the probability by a second distribution of the same numbers": (
        "s = F.softplus(width); a = D.Laplace(mean, s).sample(); loss = dec(a).mean() - D.Laplace(mean, s).log_prob(a).mean() + mean.square().mean()"
    ),
    "the probability written out": (
        "s = F.softplus(width); a = D.Normal(mean, s).sample(); loss = dec(a).mean() + ((a - mean) ** 2 / s**2 + s.log()).mean()"
    ),
    "a ratio to what was": (
        "q = D.Uniform(mean, mean + F.softplus(width)); a = q.sample(); loss = dec(a).mean() - (q.log_prob(a) - q.log_prob(a).detach()).exp().mean()"
    ),
    "a mixture, which has no rsample": (
        "q = D.MixtureSameFamily(D.Categorical(logits=mean), D.Normal(mean, F.softplus(width))); a = q.sample()\n"
        "    loss = dec(torch.stack([a, a], 1)).mean() + mean.square().mean() + width.mean()"
    ),
    "under the user's own no_grad": (
        "q = D.Laplace(mean, F.softplus(width))\n    with torch.no_grad(): z = q.sample()\n"
        "    loss = F.mse_loss(dec(z), x) - q.entropy().mean() + mean.mean()"
    ),
    "straight through": "q = D.Laplace(mean, F.softplus(width)); z = q.sample() + q.mean - q.mean.detach(); loss = dec(z).mean() - q.entropy().mean()",
    "rsample": "loss = F.mse_loss(dec(q.rsample()), x) + D.kl_divergence(q, unit).mean()",
    "the probability of an action": "a = q.sample(); loss = -(q.log_prob(a) * dec(a).detach().mean()).mean() + dec(a).mean() - q.entropy().mean()",
    "of an action that was clamped": "a = q.sample().clamp(-2, 2); loss = -q.log_prob(a).mean() + dec(a).mean()",
    "a critic's own loss": (
        "dec(q.sample()).square().mean().backward(); opt.step(); opt.zero_grad(); q = D.Normal(*enc(x).chunk(2, 1), validate_args=False)\n"
        "    loss = q.mean.square().mean() + q.stddev.square().mean() + dec(q.mean).mean()"
    ),
    "a fixed distribution": "loss = F.mse_loss(dec(unit.sample()), x) + D.kl_divergence(q, unit).mean()",
    "a draw that is shown": "print(q.sample().mean().item()); loss = F.mse_loss(dec(mean), x) + q.stddev.mean()",
    "gates": "q = D.Bernoulli(logits=mean + width); m = q.sample(); loss = dec(m * 0.5).square().mean() + (mean + width).square().mean()",
}


@pytest.mark.parametrize("name", GUILTY)
def test_a_draw_that_cuts_a_part(tmp_path: Path, name: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(loss=GUILTY[name]))
    report, _ = run_script(str(tmp_path / "script.py"))
    assert report is not None
    (finding,) = report.findings
    assert (finding.code, finding.severity) == ("FXG105", "note"), str(report)
    assert finding.site is not None
    assert finding.fix is not None
    assert "rsample()" in finding.fix.advice
    assert "sample(" in (tmp_path / "script.py").read_text().splitlines()[finding.site.line - 1][finding.site.column - 1 :]
    assert finding.parameters == ("enc.weight", "enc.bias")


@pytest.mark.parametrize("name", QUIET)
def test_a_draw_that_is_meant_to_have_no_history(tmp_path: Path, name: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(loss=QUIET[name]))
    report, _ = run_script(str(tmp_path / "script.py"))
    assert report is not None
    assert [f for f in report.findings if f.code == "FXG105"] == [], str(report)


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(4, 4), nn.Linear(2, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, width = self.enc(x).chunk(2, 1)
        z = torch.distributions.Normal(mean, width.exp()).sample()
        return self.dec(z), mean, width


def test_of_a_model() -> None:
    def loss(out: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return out[0].square().mean() - (1 + out[2] - out[1] ** 2 - out[2].exp()).mean()

    report = fxgrad.analyze(Autoencoder(), (torch.randn(8, 4),), loss=loss)
    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.parameters) == ("FXG105", "note", ("enc.weight", "enc.bias"))
