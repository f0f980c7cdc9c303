"""One step of training under PyTorch: forward, backward, Adam; imported by network.py."""

import torch

from denoiser import Denoiser, compiled

OPTIMIZERS = {"fused": {"fused": True}, "foreach": {"foreach": True}}
# Too small to move the weights, so that every step does the same work on the same numbers.
LEARNING_RATE = 1e-8


class Training:
    """The loss of Karras et al. 2022, arXiv 2206.00364, table 1: `λ(sigma) |D(x + sigma n; sigma) − x|²`, averaged."""

    def __init__(self, folder, variant):
        # What is compiled is the loss as a whole.
        self.denoiser = Denoiser(folder, type(variant)(variant.layout, variant.arithmetic, "eager"), trainable=True)
        self.parameters = list(self.denoiser.network.parameters())
        self.optimizers = {
            name: torch.optim.Adam(self.parameters, lr=LEARNING_RATE, **options) for name, options in OPTIMIZERS.items()
        }
        self.loss = compiled(self._loss, variant.mode)

    def _loss(self, x, noise, sigma):
        sigma_data = self.denoiser.sigma_data
        weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
        return (weight * (self.denoiser.estimate(x + sigma * noise, sigma) - x) ** 2).mean()

    def gradients(self, x, noise, sigma):
        """The loss and the gradient of all weights as one vector."""
        loss = self.loss(x, noise, sigma)
        gradients = torch.autograd.grad(loss, self.parameters)
        return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])

    def step(self, optimizer, x, noise, sigma):
        optimizer = self.optimizers[optimizer]
        optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x, noise, sigma)
        loss.backward()
        optimizer.step()
        return loss.detach()
