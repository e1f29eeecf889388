"""The network of digits/training/network.py in PyTorch, trained eagerly; benchmarks/training.py calls `learn`."""

import time
from pathlib import Path

import torch
import yaml
from torch import nn


def network(filters, dense, dropout):
    def convolution(before, after, size):
        return nn.Conv2d(before, after, size, bias=False), nn.BatchNorm2d(after), nn.ReLU()

    return nn.Sequential(
        *convolution(1, filters[0], 5),
        nn.MaxPool2d(2),
        *convolution(filters[0], filters[1], 3),
        nn.MaxPool2d(2),
        *convolution(filters[1], filters[2], 3),
        nn.Flatten(),
        nn.Dropout(dropout[0]),
        nn.LazyLinear(dense[0], bias=False),
        nn.BatchNorm1d(dense[0]),
        nn.ReLU(),
        nn.Dropout(dropout[1]),
        nn.Linear(dense[0], dense[1]),
        nn.ReLU(),
        nn.Linear(dense[1], 10),
    )


def learn(arrays, epochs, batch):
    params = yaml.safe_load(Path("params.yaml").read_text())["train"]
    torch.manual_seed(params["seed"])
    images, test = (torch.tensor(arrays[name])[:, None] / 255 for name in ("x_train", "x_test"))
    labels, digits = (torch.tensor(arrays[name]).long() for name in ("y_train", "y_test"))
    model = network(params["filters"], params["dense"], params["dropout"])
    model(images[:2])
    rate = torch.optim.Adam(model.parameters(), 1e-3)
    loss = nn.CrossEntropyLoss()
    seconds, accuracy = [], []
    for _ in range(epochs):
        begun = time.perf_counter()
        model.train()
        for some in torch.randperm(len(images)).split(batch):
            rate.zero_grad()
            loss(model(images[some]), labels[some]).backward()
            rate.step()
        seconds.append(time.perf_counter() - begun)
        model.eval()
        with torch.inference_mode():
            found = torch.cat([model(some).argmax(1) for some in test.split(500)])
        accuracy.append((found == digits).double().mean().item())
    return {"seconds": seconds, "accuracy": accuracy, "versions": {"torch": torch.__version__}}
