"""The likelihood of a prediction, with the weight that keeps its certainty honest."""

import pytest
import torch

from deeprelax_ase.training.loss import likelihood


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_likeliest_scale_is_the_error_whatever_the_weight(beta):
    """The weight by the scale is no part of what is minimised, or errors would look smaller."""
    errors = torch.tensor([0.01, 0.1, 1.5])

    def slope(factor):
        log_scales = (factor * errors).log().requires_grad_()
        likelihood(errors, log_scales, beta).sum().backward()
        return log_scales.grad

    torch.testing.assert_close(slope(1.0), torch.zeros(3))
    assert (slope(0.8) < 0).all()
    assert (slope(1.25) > 0).all()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_uncertain_errors_count_by_a_power_of_their_scale(beta):
    errors = torch.tensor([0.1, 0.1, 0.1], requires_grad=True)
    scales = torch.tensor([0.01, 0.1, 1.0])
    likelihood(errors, scales.log(), beta).sum().backward()
    torch.testing.assert_close(errors.grad, scales ** (beta - 1))
