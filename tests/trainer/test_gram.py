import numpy as np
import pytest
import torch

from trainer.losses.gram import gram


def test_gradcheck_in_float64_through_the_reference():
    for shape in ((2, 3, 4, 5), (1, 4, 7)):
        f = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(gram, (f,))


@pytest.mark.parametrize("shape", [(2, 8, 5, 5), (3, 40, 9), (1, 1, 1, 1), (0, 4, 3, 3)])
def test_value_and_gradient_equal_autograd(shape):
    f = torch.randn(shape, requires_grad=True)
    twin = f.detach().double().requires_grad_()
    rows = twin.flatten(2)
    expected = rows @ rows.mT / max(1, rows.shape[1] * rows.shape[2])
    result = gram(f)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn(result.shape)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(f.grad.double(), twin.grad, rtol=1e-5, atol=1e-6)


def test_takes_half_precision_and_channels_last():
    f = torch.randn(2, 8, 6, 6)
    half = f.half().requires_grad_()
    result = gram(half)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, gram(f), rtol=1e-2, atol=1e-3)
    result.sum().backward()
    assert half.grad.dtype == torch.float16
    torch.testing.assert_close(gram(f.to(memory_format=torch.channels_last)), gram(f))
    assert np.isfinite(half.grad.numpy()).all()
