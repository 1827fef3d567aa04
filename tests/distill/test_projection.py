import torch

from kdnas.distill.hidden_state import HiddenStateLoss
from kdnas.distill.projection import RIDGE, fit_projections


def test_linear_teacher_is_recovered_and_padding_is_ignored() -> None:
    torch.manual_seed(0)
    states = [torch.randn(4, 50, 6) for _ in range(3)]
    maps = {1: torch.randn(6, 5), 2: torch.randn(6, 5)}
    targets = {layer: states[layer] @ weight + layer for layer, weight in maps.items()}
    mask = torch.ones(4, 50)
    mask[:, 30:] = 0
    targets = {layer: torch.where(mask[..., None] > 0, target, 1e3) for layer, target in targets.items()}
    loss = HiddenStateLoss([(1, 1), (2, 2)], 6, 5, torch.ones(2))
    fit_projections(loss, [(states, targets, mask)])
    for index, layer in enumerate((1, 2)):
        torch.testing.assert_close(loss.projections[index].weight, maps[layer].T, rtol=0.05, atol=0.05)
    assert (loss(states, targets, mask) < 0.01).all()


def test_projections_over_several_batches_equal_ridge_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    torch.manual_seed(1)
    batches = [
        ([torch.zeros(0), torch.randn(2, 40, 8)], {3: torch.randn(2, 40, 4)}, torch.ones(2, 40)) for _ in range(3)
    ]
    loss = HiddenStateLoss([(1, 3)], 8, 4, None)
    fit_projections(loss, batches)
    inputs = torch.cat([states[1].flatten(0, 1) for states, _, _ in batches]).double().numpy()
    outputs = torch.cat([targets[3].flatten(0, 1) for _, targets, _ in batches]).double().numpy()
    penalty = RIDGE * float((inputs**2).sum(0).mean())
    expected = Ridge(alpha=penalty, solver="cholesky").fit(inputs, outputs)
    # scikit-learn centres the data first, which gives almost the same penalty.
    torch.testing.assert_close(
        loss.projections[0].weight.double().detach().numpy(), expected.coef_, rtol=1e-3, atol=1e-4
    )
