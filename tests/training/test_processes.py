"""Parts of training on several devices that one process can show."""

import torch

from tests.helpers.tiny_model import build_tiny_network
from tfcseg.training.processes import CrossProcessBatchNorm, use_cross_process_norm


def test_norms_over_processes_stay_where_the_network_is():
    """The network is on its GPU before its norms are replaced; no GPU is needed to see that they follow."""
    network = build_tiny_network().to("meta")
    use_cross_process_norm(network)
    norms = [module for module in network.modules() if isinstance(module, CrossProcessBatchNorm)]
    assert norms
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}


def test_norms_over_processes_have_the_same_numbers():
    network = build_tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    use_cross_process_norm(network)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
