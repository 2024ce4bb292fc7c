"""FXG302: optimizers that hold tensors the model has given up, and replacements made in time."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations


def guilty_head_replaced_after():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(4, 4), nn.Linear(4, 10)

        def forward(self, x):
            return self.fc(self.body(x).relu())

    model = Classifier()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)  # or FXG302
    model.fc = nn.Linear(4, 3)  # FXG302
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: F.cross_entropy(o, torch.tensor([0, 2])), optimizer=optimizer)


def guilty_layer_grown_by_a_method():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(3, 4), nn.Linear(4, 1)

        def widen(self, extra):
            old = self.hidden
            self.hidden = nn.Linear(3, old.out_features + extra)  # or FXG302
            self.out = nn.Linear(self.hidden.out_features, 1)  # or FXG302

        def forward(self, x):
            return self.out(self.hidden(x).tanh())

    model = Growing()
    optimizer = torch.optim.Adam([{"params": [p]} for p in model.parameters()])  # or FXG302
    model.widen(2)  # FXG302
    return dict(model=model, inputs=(torch.randn(2, 3),), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_weights_tied_after():
    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.dec = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x):
            return self.dec(self.enc(x).tanh())

    model, x = Autoencoder(), torch.randn(3, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)  # or FXG302
    model.dec.weight = model.enc.weight  # FXG302
    return dict(model=model, inputs=(x,), loss=lambda o: F.mse_loss(o, x), optimizer=optimizer)


def guilty_model_copied_after():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x):
            return self.fc(x)

    model = Net()
    optimizer = torch.optim.Adam(model.parameters())  # or FXG302
    model = copy.deepcopy(model)  # FXG302
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_state_assigned_after():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())  # or FXG302
    checkpoint = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(checkpoint, assign=True)  # FXG302
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.square().sum(), optimizer=optimizer)


def guilty_weight_norm_after():
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 1)])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    model = Critic()
    optimizer = torch.optim.RMSprop(model.parameters())  # or FXG302
    for layer in model.layers:
        parametrizations.weight_norm(layer)  # FXG302
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_materialised_from_meta_after():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)  # or FXG302
    model.to_empty(device="cpu")  # FXG302
    for p in model.parameters():
        nn.init.normal_(p)
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def guilty_parameter_reinitialised_by_a_new_object():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.scale = nn.Linear(4, 1), nn.Parameter(torch.ones(1))

        def reset(self):
            self.scale = nn.Parameter(torch.full((1,), 0.5))  # or FXG302

        def forward(self, x):
            return self.scale * self.fc(x)

    model = Scaled()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)  # or FXG302
    model.reset()  # FXG302
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_head_replaced_before():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(4, 4), nn.Linear(4, 10)

        def forward(self, x):
            return self.fc(self.body(x).relu())

    model = Classifier()
    model.fc = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_tied_before():
    class Lm(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.out.weight = self.emb.weight

        def forward(self, ids):
            return self.out(self.emb(ids))

    model, ids = Lm(), torch.randint(0, 7, (2, 3))
    optimizer = torch.optim.AdamW(model.parameters())
    return dict(model=model, inputs=(ids,), loss=lambda o: F.cross_entropy(o.transpose(1, 2), ids), optimizer=optimizer)


def quiet_in_place_changes_keep_the_parameters():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    model.load_state_dict({k: v + 0.1 for k, v in model.state_dict().items()})
    model.apply(lambda m: nn.init.zeros_(m.bias) if isinstance(m, nn.Linear) else None)
    model.double().float()
    model[0].weight.data = model[0].weight.data.clone()
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.square().sum(), optimizer=optimizer)


def quiet_spectral_norm_keeps_the_parameter():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    parametrizations.spectral_norm(model[0])
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_optimizer_shared_by_living_modules():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x)

    online, other = Net(), Net()
    optimizer = torch.optim.Adam([*online.parameters(), *other.parameters()])
    return dict(model=online, inputs=(torch.randn(2, 4),), loss=lambda o, other=other: o.sum(), optimizer=optimizer)


def quiet_average_copied_the_model_trained_itself():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x)

    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_image_optimised_through_a_frozen_network():
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.gain = nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, image):
            return self.gain * self.conv(image)

    model = Features()
    model.conv.requires_grad_(False)
    image = torch.rand(1, 3, 5, 5, requires_grad=True)
    optimizer = torch.optim.Adam([image, *model.parameters()])
    return dict(model=model, inputs=(image,), loss=lambda o: o.square().mean(), optimizer=optimizer)


def quiet_head_taken_out():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(4, 4), nn.Linear(4, 10)

        def forward(self, x):
            return self.fc(self.body(x))

    model = Classifier()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.fc = nn.Identity()
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_layer_taken_out_beside_its_like():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.out(self.second(self.first(x).tanh()))

    model = Deep()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.second = nn.Identity()
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_new_group_takes_over_the_replaced_head():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(4, 4), nn.Linear(4, 10)

        def forward(self, x):
            return self.fc(self.body(x).relu())

    model = Classifier()
    optimizer = torch.optim.SGD([{"params": model.body.parameters()}], 0.1)
    model.fc = nn.Linear(4, 3)
    optimizer.add_param_group({"params": model.fc.parameters(), "lr": 0.01})
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_prefix_given_up_after_the_first_phase():
    class Prompted(nn.Module):
        def __init__(self):
            super().__init__()
            self.prefix, self.fc = nn.Parameter(torch.randn(4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x if self.prefix is None else x + self.prefix)

    model = Prompted()
    optimizer = torch.optim.Adam(model.parameters())
    model.prefix = None
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_optimizer_state_restored():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    saved = copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    optimizer.zero_grad()
    return dict(model=model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=optimizer)


def quiet_model_and_optimizer_copied_together():
    class Population:
        def __init__(self):
            model = nn.Linear(4, 2)
            self.model, self.optimizer = model, torch.optim.SGD(model.parameters(), 0.1)

    member = copy.deepcopy(Population())
    return dict(model=member.model, inputs=(torch.randn(2, 4),), loss=lambda o: o.sum(), optimizer=member.optimizer)
