"""Several processes, one global batch: the sums that cross processes.

A step over a global batch of B images must be the same step whether one process holds all B or R processes hold
B/R each. Three things are not simply means over images and have to cross processes *inside* the forward pass, with
gradients: batch statistics (batch norm), batch means (feature matching) and partners taken from elsewhere in the
batch (mismatched pairs). Gradients are averaged explicitly after `backward`, as in StyleGAN's own code, because a GAN
calls its networks several times, in parts, before one optimizer step, which DistributedDataParallel does not allow.
With one process every function here is the identity or the plain local operation.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from runtime.errors import InputError

# torch 2.13 says that these two may move; they are the only collectives with gradients.
warnings.filterwarnings("ignore", ".*torch.distributed.nn.functional.*", FutureWarning)


def rank() -> int:
    """This process's number among the processes that train together; 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


T = TypeVar("T")


def main_first(work: Callable[[], T]) -> T:
    """Do `work` in the main process, then in the others, which find what it left (a cache).

    Raises:
        InputError: the main process's; the other processes leave without a word, so that it is said once.
    """
    failed: list[InputError | None] = [None]
    if rank() == 0:
        try:
            result = work()
        except InputError as error:
            failed = [error]
    if world_size() > 1:
        dist.broadcast_object_list(failed)
    if failed[0] is not None:
        if rank() == 0:
            raise failed[0]
        sys.exit(2)
    return result if rank() == 0 else work()


def batch_mean(x: Tensor) -> Tensor:
    """Mean of `x` [N, ...] over the global batch, [...], with gradients to every process's share."""
    local = x.mean(0)
    return local if world_size() == 1 else all_reduce(local) / world_size()


def gather(x: Tensor) -> Tensor:
    """The global batch [R·N, ...] of `x` [N, ...], in rank order, with gradients to every process's share."""
    return x if world_size() == 1 else torch.cat(all_gather(x.contiguous()))


def share(x: Tensor) -> Tensor:
    """This process's rows of a global batch `x` [R·N, ...] → [N, ...]: the inverse of `gather`."""
    return x if world_size() == 1 else x.chunk(world_size())[rank()]


def average(x: Tensor) -> Tensor:
    """Mean of `x` over the processes, without gradients."""
    if world_size() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one transfer."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = average(torch.cat([g.reshape(-1) for g in gradients]))
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set in any process: all agree, so that all stop at the same step."""
    if world_size() == 1:
        return flag
    tensor = torch.tensor(int(flag), device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return bool(tensor.item())


class BatchNorm(_BatchNorm):
    """Batch norm over the global batch, on any device, for [N, C] and [N, C, H, W] alike.

    `torch.nn.SyncBatchNorm` does the same on CUDA only. Alone, and when evaluating, this is torch's batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] → the same shape, normalised per channel."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        count = input.numel() // input.shape[1] * world_size()
        mean = all_reduce(input.sum(axes)) / count
        centred = input - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                momentum = self.momentum if self.momentum is not None else 0.1
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)
        out = centred * torch.rsqrt(variance.view(shape) + self.eps)
        return out if self.weight is None else out * self.weight.view(shape) + self.bias.view(shape)
