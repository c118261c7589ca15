"""How sure labels are."""

import numpy as np
import pytest
import torch

from tfcseg.model.ops.labelling import confidence_from_logits


def test_two_classes_counted_by_hand():
    logits = torch.tensor([0.0, np.log(4.0)]).view(1, 2, 1, 1)
    assert confidence_from_logits(logits).item() == round(255 * 4 / 5)
    assert confidence_from_logits(logits, temperature=0.5).item() == round(255 * 16 / 17)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_greatest_probability(temperature, dtype):
    logits = (5 * torch.randn(2, 7, 6, 9, generator=torch.Generator().manual_seed(0))).to(dtype)
    before = logits.clone()
    found = confidence_from_logits(logits, temperature)
    expected = 255 * (logits.double() / temperature).softmax(1).amax(1)
    assert (found - expected).abs().max() <= 0.51
    assert torch.equal(logits, before)
