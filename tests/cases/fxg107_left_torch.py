"""FXG107: values that leave torch on the way to the loss, and values that leave it without harm."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import from_numpy, nn


def guilty_histogram_match_helper() -> dict[str, Any]:
    def to_array(t: torch.Tensor) -> np.ndarray:
        return t.detach().cpu().numpy()  # FXG107

    def equalise(image: torch.Tensor) -> torch.Tensor:
        array = to_array(image)
        array = (array - array.min()) / (array.max() - array.min() + 1e-6)
        return from_numpy(array.astype("float32"))

    class Stylise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Conv2d(3, 4, 3, padding=1)
            self.refine = nn.Conv2d(4, 3, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.refine(equalise(torch.relu(self.encode(image))))

    return dict(model=Stylise(), inputs=(torch.rand(1, 3, 5, 5),), loss=lambda out: out.square().mean())


def guilty_item_accumulated_loss() -> dict[str, Any]:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(8, 4)
            self.rnn = nn.GRU(4, 4, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(self.embed(ids))[0])

    model = Tagger()
    labels = torch.randint(0, 3, (2, 4))

    class SequenceLoss:
        def __call__(self, out: torch.Tensor) -> torch.Tensor:
            total = 0.0
            for step in range(out.shape[1]):
                total += F.cross_entropy(out[:, step], labels[:, step]).item()  # FXG107
            return torch.tensor(total / out.shape[1], requires_grad=True)

    return dict(model=model, inputs=(torch.randint(0, 8, (2, 4)),), loss=SequenceLoss())


def guilty_gate_as_python_float() -> dict[str, Any]:
    class Highway(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)
            self.gate = nn.Parameter(torch.tensor(0.3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            alpha = float(torch.sigmoid(self.gate))  # FXG107
            return alpha * torch.relu(self.body(x)) + (1.0 - alpha) * x

    return dict(model=Highway(), inputs=(torch.randn(3, 4),), loss=lambda out: out.pow(2).mean())


def guilty_math_of_temperature() -> dict[str, Any]:
    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.text = nn.Linear(6, 4), nn.Linear(5, 4)
            self.log_scale = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))

        def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
            a = F.normalize(self.image(image), dim=-1)
            b = F.normalize(self.text(text), dim=-1)
            return math.exp(self.log_scale.item()) * a @ b.t()  # FXG107

    return dict(
        model=Clip(),
        inputs=(torch.randn(3, 6), torch.randn(3, 5)),
        loss=lambda logits: F.cross_entropy(logits, torch.arange(3)),
    )


def guilty_list_of_items_to_weights() -> dict[str, Any]:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))
            self.router = nn.Linear(4, 3)

        def weights(self, x: torch.Tensor) -> list[float]:
            scores = self.router(x.mean(0)).softmax(-1)
            return [s.item() for s in scores]  # FXG107

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sum(w * e(x) for w, e in zip(self.weights(x), self.experts, strict=True))

    return dict(model=Mixture(), inputs=(torch.randn(5, 4),), loss=lambda out: out.square().sum())


def guilty_numpy_function_of_hidden() -> dict[str, Any]:
    class Whitening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
            self.out = nn.Linear(6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.net(x)
            centred = np.asarray(h.detach()) - np.mean(h.detach().numpy(), axis=0)  # FXG107
            return self.out(torch.as_tensor(centred))

    return dict(model=Whitening(), inputs=(torch.randn(3, 4),), loss=lambda out: out.abs().mean())


def guilty_tolist_and_back() -> dict[str, Any]:
    class Sorter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(3, 1)
            self.scale = nn.Linear(1, 1)

        def forward(self, items: torch.Tensor) -> torch.Tensor:
            ranked = sorted(self.score(items).flatten().tolist(), reverse=True)  # FXG107
            return self.scale(torch.tensor(ranked).unsqueeze(-1))

    return dict(model=Sorter(), inputs=(torch.randn(5, 3),), loss=lambda out: out.sum())


def guilty_whole_loss_in_numpy() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    target = np.ones((6, 1), dtype=np.float32)

    def rmse(prediction: torch.Tensor) -> torch.Tensor:
        error = prediction.detach().numpy() - target  # FXG107
        return torch.tensor(np.sqrt((error**2).mean()), requires_grad=True)

    return dict(model=model, inputs=(torch.randn(6, 4),), loss=rmse)


def guilty_metric_in_loss_by_number() -> dict[str, Any]:
    class Regressor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.log_var = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"mean": self.mean(x), "log_var": self.log_var(x)}

    target = torch.zeros(4, 1)

    def nll(out: dict[str, torch.Tensor]) -> torch.Tensor:
        spread = out["log_var"].exp().mean().item()  # FXG107
        return ((out["mean"] - target) ** 2).mean() / spread + math.log(spread)

    return dict(model=Regressor(), inputs=(torch.randn(4, 3),), loss=nll)


def guilty_filled_array_row_by_row() -> dict[str, Any]:
    class Kalman(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transition = nn.Parameter(torch.eye(2) * 0.9)
            self.readout = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states = np.zeros((4, 2), dtype=np.float32)
            state = x
            for i in range(4):
                state = self.transition @ state
                states[i] = state.detach()  # FXG107
            return self.readout(torch.from_numpy(states))

    return dict(model=Kalman(), inputs=(torch.ones(2),), loss=lambda out: out.sum())


def guilty_index_from_learned_position() -> dict[str, Any]:
    class Crop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.locate = nn.Linear(8, 1)
            self.head = nn.Linear(4, 2)

        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            start = int(torch.sigmoid(self.locate(signal)).mean() * 4)  # FXG107
            return self.head(signal[:, start : start + 4])

    return dict(model=Crop(), inputs=(torch.randn(3, 8),), loss=lambda out: out.square().mean())


def guilty_labels_of_a_clustering() -> dict[str, Any]:
    """Small changes of the numbers do not change the labels; the way is there all the same."""

    def assign(points: np.ndarray) -> np.ndarray:
        centres = points[:2]
        return ((points[:, None] - centres[None]) ** 2).sum(-1).argmin(1)

    class Clustered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.embed = nn.Linear(3, 2), nn.Embedding(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            labels = assign(self.project(x).detach().cpu().numpy())  # FXG107
            return self.embed(torch.from_numpy(labels))

    return dict(model=Clustered(), inputs=(torch.randn(6, 3),), loss=lambda out: out.square().mean())


def guilty_threshold_of_a_python_if() -> dict[str, Any]:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.tensor(0.7))
            self.body = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.gate.item() > 0.5:  # FXG107
                return self.body(x)
            return self.body(x) + x

    return dict(model=Gated(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().sum())


# ---------------------------------------------------------------------------------------------------------------- healthy


def guilty_rewards_of_sampled_actions_are_the_loss() -> dict[str, Any]:
    def reward(action: int) -> float:
        return 1.0 if action == 0 else -0.5 * action

    def loss(logits: torch.Tensor) -> torch.Tensor:
        actions = torch.distributions.Categorical(logits=logits).sample()
        rewards = []
        for action in actions:
            rewards.append(reward(action.item()))  # FXG107
        return -torch.tensor(rewards, requires_grad=True).sum()

    return dict(model=nn.Linear(3, 4), inputs=(torch.randn(5, 3),), loss=loss)


def guilty_a_score_of_hard_choices_in_numpy() -> dict[str, Any]:
    class Gates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
            self.gate = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            picks = torch.distributions.Bernoulli(logits=self.gate(self.body(x))).sample()
            share = picks.cpu().numpy().mean(keepdims=True)  # FXG107
            return torch.from_numpy(share).requires_grad_().sum()

    return dict(model=Gates(), inputs=(torch.randn(5, 3),))


def guilty_a_penalty_counted_from_tokens() -> dict[str, Any]:
    def loss(logits: torch.Tensor) -> torch.Tensor:
        tokens = logits.argmax(-1)
        repeated = sum(float(a == b) + 0.1 * float(a) for a, b in zip(tokens[1:], tokens[:-1], strict=True))  # FXG107
        return torch.tensor(repeated, requires_grad=True)

    return dict(model=nn.Linear(3, 4), inputs=(torch.randn(6, 3),), loss=loss)


def quiet_the_drawn_actions_weigh_their_log_probability() -> dict[str, Any]:
    def loss(logits: torch.Tensor) -> torch.Tensor:
        dist = torch.distributions.Categorical(logits=logits)
        actions = dist.sample()
        rewards = torch.tensor([1.0 if action == 0 else -0.5 for action in actions.tolist()])
        return -(dist.log_prob(actions) * rewards).mean()

    return dict(model=nn.Linear(3, 4), inputs=(torch.randn(5, 3),), loss=loss)


def quiet_a_choice_between_two_models_is_no_loss_of_numbers() -> dict[str, Any]:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.speak, self.table = nn.Linear(3, 4), nn.Embedding(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = torch.tensor(self.speak(x).argmax(-1).tolist())  # or FXG105
            return self.table(tokens)

    model = Words()
    model.speak.requires_grad_(False)
    return dict(model=model, inputs=(torch.randn(5, 3),), loss=lambda out: out.pow(2).mean())


def quiet_a_number_of_a_draw_scales_the_loss() -> dict[str, Any]:
    def loss(out: torch.Tensor) -> torch.Tensor:
        keep = torch.bernoulli(torch.full((1,), 0.5)).item()
        return out.pow(2).mean() * (1.0 + keep)

    return dict(model=nn.Linear(3, 4), inputs=(torch.randn(5, 3),), loss=loss)


def quiet_logging_with_item() -> dict[str, Any]:
    class Logged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 2)
            self.history: list[float] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            self.history.append(out.norm().item())
            print(f"{out.mean().item():.3f}", end="")
            return out

    return dict(model=Logged(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_numpy_input_pipeline() -> dict[str, Any]:
    table = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)

    class Positional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x + torch.from_numpy(table))

    return dict(model=Positional(), inputs=(torch.randn(3, 4),), loss=lambda out: out.sum())


def quiet_scaled_by_running_number() -> dict[str, Any]:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 4)
            self.peak = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.net(x)
            self.peak = max(self.peak, h.abs().max().item())
            return h / self.peak

    return dict(model=Normed(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().sum())


def quiet_lengths_tolist_split() -> dict[str, Any]:
    class Ragged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(2, 3)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            parts = torch.split(self.net(x), lengths.tolist())
            return torch.stack([p.max(0).values for p in parts])

    return dict(model=Ragged(), inputs=(torch.randn(6, 2), torch.tensor([1, 3, 2])), loss=lambda out: out.square().mean())


def quiet_accuracy_in_numpy_beside_loss() -> dict[str, Any]:
    model = nn.Linear(4, 3)
    labels = torch.tensor([0, 2, 1])
    seen: list[float] = []

    def loss(logits: torch.Tensor) -> torch.Tensor:
        seen.append(float((logits.argmax(-1).numpy() == labels.numpy()).mean()))
        return F.cross_entropy(logits, labels)

    return dict(model=model, inputs=(torch.randn(3, 4),), loss=loss)


def quiet_unused_head_that_is_logged() -> dict[str, Any]:
    """The extra head's number is printed and no more; the head is frozen and nobody expects it to train."""

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.probe = nn.Linear(4, 4), nn.Linear(4, 1).requires_grad_(False)
            self.last = 0.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.net(x))
            self.last = float(self.probe(h).mean())
            return h

    return dict(model=Probe(), inputs=(torch.randn(2, 4),), loss=lambda out: out.sum())


def quiet_straight_through_numpy_quantiser() -> dict[str, Any]:
    """The round trip is only the detached half of a straight-through estimator."""

    class Quantiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.net(x)
            rounded = torch.from_numpy(np.round(h.detach().numpy() * 4) / 4)
            return h + (rounded - h).detach()

    return dict(model=Quantiser(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_baseline_as_a_running_number() -> dict[str, Any]:
    class Reinforce:
        def __init__(self):
            self.baseline = 0.0

        def __call__(self, logits):
            dist = torch.distributions.Categorical(logits=logits)
            action = dist.sample()
            reward = (action == 1).float()
            loss = -(dist.log_prob(action) * (reward - self.baseline)).mean()
            self.baseline = 0.9 * self.baseline + 0.1 * reward.mean().item() + 0.05
            return loss + 0.01 * logits.square().mean()

    return dict(model=nn.Linear(4, 3), inputs=(torch.randn(6, 4),), loss=Reinforce())


def quiet_loss_balanced_by_numbers() -> dict[str, Any]:
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x):
            return self.a(x), self.b(x)

    def loss(out):
        a, b = (o.square().mean() for o in out)
        w = math.exp(a.item()) / (math.exp(a.item()) + math.exp(b.item()))
        return w * a + (1 - w) * b

    return dict(model=Two(), inputs=(torch.randn(4, 3),), loss=loss)


def quiet_gradients_clipped_by_their_norm_in_numpy() -> dict[str, Any]:
    class Clipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)
            self.norms = []
            self.fc.weight.register_hook(self.clip)

        def clip(self, grad):
            norm = float(np.linalg.norm(grad.numpy()))
            self.norms.append(norm)
            return grad * min(1.0, 0.5 / (norm + 1e-6))

        def forward(self, x):
            return self.fc(x)

    return dict(model=Clipped(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_generalised_advantages_in_a_python_loop() -> dict[str, Any]:
    class ActorCritic(nn.Module):
        def __init__(self):
            super().__init__()
            self.pi, self.v = nn.Linear(4, 2), nn.Linear(4, 1)

        def forward(self, s):
            return self.pi(s).log_softmax(-1)[:, 0], self.v(s).squeeze(-1)

    def loss(out):
        logp, value = out
        values, running, advantages = value.tolist(), 0.0, []
        for t in reversed(range(len(values))):
            following = values[t + 1] if t + 1 < len(values) else 0.0
            running = 1.0 + 0.9 * following - values[t] + 0.8 * running
            advantages.insert(0, running)
        advantage = torch.tensor(advantages)
        return -(logp * advantage).mean() + F.mse_loss(value, advantage + value.detach())

    return dict(model=ActorCritic(), inputs=(torch.randn(5, 4),), loss=loss)


def quiet_assignment_solved_outside_torch() -> dict[str, Any]:
    def solve(cost):
        free, pairs = set(range(cost.shape[1])), []
        for row in cost:
            best = min(free, key=lambda column: row[column])
            free.discard(best)
            pairs.append(best)
        return pairs

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.box = nn.Linear(4, 2)

        def forward(self, x, goals):
            boxes = self.box(x)
            columns = solve(torch.cdist(boxes, goals).detach().numpy())
            return F.l1_loss(boxes, goals[columns])

    return dict(model=Detector(), inputs=(torch.randn(3, 4), torch.randn(4, 2)))


def quiet_temperature_annealed_by_the_step() -> dict[str, Any]:
    class Annealed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("step", torch.tensor(40))

        def forward(self, x):
            tau = max(0.5, math.exp(-0.01 * self.step.item()))
            self.step += 1
            return F.gumbel_softmax(self.fc(x), tau=tau) @ torch.arange(3.0)

    return dict(model=Annealed(), inputs=(torch.randn(5, 4),), loss=lambda o: o.square().mean())


def quiet_report_written_as_json() -> dict[str, Any]:
    class Reporting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.gate = nn.Linear(4, 4), nn.Parameter(torch.tensor(0.3))
            self.lines = []

        def forward(self, x):
            y = self.fc(x) * self.gate.tanh()
            stats = {name: round(float(p.norm()), 4) for name, p in self.named_parameters()}
            self.lines.append(json.dumps({**stats, "gate": self.gate.item(), "out": y.mean(0).tolist()}))
            return y

    return dict(model=Reporting(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_perplexity_of_the_loss_itself() -> dict[str, Any]:
    best = {"ppl": math.inf}

    def loss(logits):
        value = F.cross_entropy(logits, torch.tensor([0, 1, 2]))
        best["ppl"] = min(best["ppl"], math.exp(value))
        return value

    return dict(model=nn.Linear(4, 3), inputs=(torch.randn(3, 4),), loss=loss)


def quiet_normalised_by_a_frozen_copy_of_the_norm() -> dict[str, Any]:
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            u = np.linalg.svd(self.fc.weight.detach().numpy(), compute_uv=False)[0]
            return F.linear(x, self.fc.weight / float(u), self.fc.bias)

    return dict(model=Normed(), inputs=(torch.randn(3, 4),), loss=lambda o: o.square().mean())


def quiet_lengths_of_a_batch_as_numbers() -> dict[str, Any]:
    class Ragged(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 1)

        def forward(self, ids):
            lengths = [int(n) for n in (ids != 0).sum(1)]
            return self.out(torch.stack([self.emb(row[:n]).mean(0) for row, n in zip(ids, lengths, strict=True)]))

    return dict(model=Ragged(), inputs=(torch.tensor([[1, 2, 0], [3, 4, 5]]),), loss=lambda o: o.square().mean())
