"""MAP on LeNet as one writes it in plain torch: what other libraries' training steps are compared with."""

import torch
import torch.nn.functional as F
from torch import nn

from bbh_dist.speed.experiments import CLASSES, SHAPE
from bbh_dist.tasks import Task

NAME = "map in plain torch"


class PlainMap:
    """Steps of Adam with weight decay on cross-entropy, over the task's training examples in order."""

    def __init__(self, task: Task, batch_size: int, device: torch.device) -> None:
        self.train, self.batch_size, self.number = task.to(device, torch.float32).train, batch_size, 0
        channels, side = SHAPE[0], ((SHAPE[1] - 4) // 2 - 4) // 2
        convolutions = [nn.Conv2d(channels, 20, 5), nn.ReLU(), nn.MaxPool2d(2)]
        convolutions += [nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)]
        dense = [nn.Linear(50 * side * side, 500), nn.ReLU(), nn.Linear(500, CLASSES)]
        self.model = nn.Sequential(*convolutions, nn.Flatten(), *dense).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, weight_decay=1 / len(self.train))

    def step(self) -> None:
        """Take the next step."""
        first, device = self.number * self.batch_size, self.train.inputs.device
        own = torch.arange(first, first + self.batch_size, device=device) % len(self.train)
        loss = F.cross_entropy(self.model(self.train.inputs[own]), self.train.labels[own])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.number += 1
