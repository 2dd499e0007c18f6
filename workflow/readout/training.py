"""Training of the small relatives: seeded, and on the CPU the same weights twice."""

import torch
from torch import nn
from torch.nn import functional as F


def train(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> nn.Module:
    """Fit `network` in place on `images` [N, C, H, W] and integer `labels` [N]; returned in evaluation mode.

    Adam with decoupled weight decay under one-cycle learning rates; each batch is shifted by up to two pixels each
    way, around the border.
    The order and the shifts come from `seed` alone; one thread count gives one result.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=learning_rate, total_steps=steps, pct_start=0.2)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(batch):
            # Kept even for batch norm, which cannot normalise one image alone.
            if len(rows) == 1:
                rows = rows.repeat(2)
            dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
            shifted = torch.roll(images[rows], (dy, dx), (2, 3))
            loss = F.cross_entropy(network(shifted), labels[rows], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()
