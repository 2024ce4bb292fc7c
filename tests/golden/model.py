"""The source that the golden reports point at: it is read, never run."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.unused = nn.Linear(4, 2)
        self.teacher = nn.Linear(4, 4)

    def forward(self, x):
        h = self.encoder(x).detach()
        with_teacher = self.teacher(x).detach()  # fxgrad: ignore[FXG103]
        return self.head(h + with_teacher)
