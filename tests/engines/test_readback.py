"""Values on their way to the host."""

import pytest
import torch

from guardrail.engines.transformers.readback import Readback

VALUES = [[1.0, -2.5], [0.0, 3.25]]


def test_the_host_gets_the_values_that_were_there():
    values = torch.tensor(VALUES)
    found = Readback(values)
    assert found.arrived
    assert found.rows() == VALUES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_host_does_not_wait_for_a_device_until_it_looks():
    values = torch.tensor(VALUES, device="cuda")
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    found = Readback(values)
    values.add_(1)  # behind the copy
    assert not found.arrived
    assert found.rows() == VALUES
    assert found.arrived
