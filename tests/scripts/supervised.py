"""Supervised: a classifier on a data loader, with an evaluation before and a logged loss."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

broken = "--broken" in sys.argv


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten())
        self.classify = nn.Linear(36, 3)

    def forward(self, x):
        return self.classify(self.features(x))


def evaluate(model, loader):
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in loader:
            correct += (model(x).argmax(1) == y).sum().item()
    model.train()
    return correct


def train(model, loader, epochs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        total = 0.0
        for x, y in loader:
            x.div_(2.0)
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            if broken:
                loss = torch.tensor(loss.item(), requires_grad=True)  # FXG107
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        schedule.step()
        print(f"epoch {epoch}: {total:.3f}, {evaluate(model, loader)} right")


if __name__ == "__main__":
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(32, 1, 8, 8), torch.randint(0, 3, (32,)))
    loader = DataLoader(data, batch_size=8, shuffle=True)
    net = Net()
    print(evaluate(net, loader), "right before")
    train(net, loader, 2)
