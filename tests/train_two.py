"""A training in as many processes as `torchrun` starts: what each process ends with goes to FOLDER/rank.json."""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from jet_anomaly.train.loop import Step, Trainer


class Line(nn.Module):
    "Least squares, with a term that only the first rows have."

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(3, 1)

    def forward(self, x, y, step=Step()):  # noqa: B008
        return {"loss": (self.layer(x)[:, 0] - y).square().mean(), "rows": y.mean()}


folder, patience = Path(sys.argv[1]), json.loads(sys.argv[2])
g = torch.Generator().manual_seed(0)
x = torch.randn(64, 3, generator=g)
y = x @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(64, generator=g)
model = Line()
trainer = Trainer(
    epochs=12,
    batch_size=16,
    lr=0.1,
    device="cpu",
    progress=False,
    folder=folder / "run",
    patience=patience,
)
history = trainer.fit(model, (x, y))
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
result = {
    "world": world,
    "weights": model.layer.weight.flatten().tolist(),
    "losses": history["train_loss"],
    "rows": history["train_rows"],
    "stopped": history.stopped,
}
(folder / f"{rank}.json").write_text(json.dumps(result))
