"""FXG204: a forward that changes its caller's tensor, and forwards that change only their own."""

from __future__ import annotations

import torch
from torch import nn


def guilty_first_layer_is_inplace():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2))

    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = model

        def forward(self, x):
            return self.layers(x)  # FXG204

    return dict(model=PreActivation(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_float_is_no_copy_of_a_float():
    class Normalise(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        @staticmethod
        def prepare(image):
            image = image.float()
            image -= 0.5  # FXG204
            return image.contiguous()

        def forward(self, image):
            return self.conv(self.prepare(image))

    return dict(model=Normalise(), inputs=(torch.rand(1, 3, 5, 5),), loss=lambda o: o.mean())


def guilty_nested_input_masked_through_a_view():
    class Batch(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, batch):
            tokens = batch["x"].view(-1, 4)
            tokens[0] = 0  # FXG204
            return self.fc(tokens)

    return dict(model=Batch(), inputs=({"x": torch.randn(2, 3, 4)},), loss=lambda o: o.sum())


def guilty_detach_shares_memory():
    class Corrupt(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            noisy = x.detach()
            noisy.add_(0.1 * torch.randn(3, 4))  # FXG204
            return self.fc(noisy) + self.fc(x)

    return dict(model=Corrupt(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def guilty_labels_overwritten():
    class Lm(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(8, 8)

        def forward(self, ids, labels):
            labels[labels == 0] = -100  # FXG204
            return nn.functional.cross_entropy(self.emb(ids).transpose(1, 2), labels)

    ids = torch.randint(1, 8, (2, 4))
    return dict(model=Lm(), inputs={"ids": ids, "labels": ids.clone()}, loss=lambda o: o)


def quiet_clone_first():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            x = x.clone()
            x += 1
            return self.fc(x)

    return dict(model=Noise(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_out_of_place_rebinding():
    class Centre(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            x = x - x.mean()
            x /= x.std()
            return self.fc(x)

    return dict(model=Centre(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_own_buffer_and_activation_written():
    class Count(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(4, 2), nn.BatchNorm1d(4)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += len(x)
            return self.fc(self.norm(x)).relu_()

    return dict(model=Count(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_reshape_that_copies():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x):
            flat = x.transpose(1, 2).reshape(len(x), -1)
            flat.mul_(2)
            return self.fc(flat)

    return dict(model=Flat(), inputs=(torch.randn(3, 2, 3),), loss=lambda o: o.sum())


def quiet_double_is_a_copy_of_a_float():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2).double()

        def forward(self, x):
            x = x.double()
            x.clamp_(-1, 1)
            return self.fc(x)

    return dict(model=Wide(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())


def quiet_advanced_indexing_copies():
    class Pick(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            chosen = x[torch.tensor([2, 0])]
            chosen.zero_()
            return self.fc(chosen + x[:2])

    return dict(model=Pick(), inputs=(torch.randn(3, 4),), loss=lambda o: o.sum())
