"""The baton, by its definition: x'_t = x_t + σ(λ) ⊙ x_{t−1}, within a document and across cached steps."""

import torch

from ourospec.families.adaptive_lm.model import Baton


def test_by_definition():
    torch.manual_seed(0)
    baton = Baton(4).double()
    torch.nn.init.normal_(baton.strength)
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    documents = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0]])
    wanted = x.clone()
    for row in range(2):
        for t in range(1, 6):
            if documents[row, t] == documents[row, t - 1]:
                wanted[row, t] += baton.strength.sigmoid() * x[row, t - 1]
    torch.testing.assert_close(baton(x, documents, None), wanted)


def test_starts_half_open_and_passes_on_what_came_before():
    x = torch.ones(1, 2, 3)
    first = Baton(3)(x, None, None)
    torch.testing.assert_close(first, torch.tensor([[[1.0] * 3, [1.5] * 3]]))
    later = Baton(3)(x, None, 2 * torch.ones(1, 1, 3))
    torch.testing.assert_close(later, torch.tensor([[[2.0] * 3, [1.5] * 3]]))
