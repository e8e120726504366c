import pytest
from torch import nn

from timeloom.errors import TimeloomError
from timeloom.train.trainable import select_trainable, trainable_table


def network():
    return nn.ModuleDict({"space": nn.Linear(2, 3), "time": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))})


def test_all_parameters_learn_by_default():
    net = network()
    select_trainable(net, ["*"])
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_only_what_fits_a_pattern_learns():
    net = network()
    select_trainable(net, ["time.0.*", "*.bias"])
    learns = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learns == {"time.0.weight", "time.0.bias", "space.bias", "time.1.bias"}


def test_the_table_counts_every_parameter_once():
    net = network()
    select_trainable(net, ["time.*"])
    columns = [list(column.cells) for column in trainable_table(net, {"vae": 1000}).columns]
    assert columns == [["space", "time", "vae", "in all"], ["0", "16", "0", "16"], ["9", "0", "1,000", "1,009"]]


def test_a_pattern_that_fits_nothing_gets_the_nearest_name():
    with pytest.raises(TimeloomError, match=r"model\.trainable.*'tims\.0\.weight'.*time\.0\.weight"):
        select_trainable(network(), ["tims.0.weight"])
