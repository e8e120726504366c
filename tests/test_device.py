import pytest
import torch

from timeloom.device import choose_device, choose_dtype
from timeloom.errors import TimeloomError


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(TimeloomError, match="--device cuda:99 cannot be used"):
        choose_device("cuda:99")


@pytest.mark.parametrize("supported", [True, False])
def test_bf16_is_warned_of_where_the_processor_lacks_it(
    supported: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert choose_dtype("fp32", torch.device("cpu")) == torch.float32
    assert choose_dtype("bf16", torch.device("cuda")) == torch.bfloat16
    assert not capsys.readouterr().err
    assert choose_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert ("fp32 is several times faster" in capsys.readouterr().err) is not supported
