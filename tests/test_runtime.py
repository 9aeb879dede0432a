import pytest
from conftest import ROOT

from convae import runtime
from convae.config import load_config
from convae.errors import UserError
from convae.runtime import Plan, fitting_micro_batch, why_no_gpu


def plan(*overrides: str, gpus: tuple[str, ...] = ()) -> Plan:
    config = load_config(ROOT / "configs/mnist.yaml", overrides)
    return runtime.plan(config, gpus, "no NVIDIA driver is installed here")


def test_without_a_gpu_auto_says_why_it_runs_on_the_cpu() -> None:
    decided = plan()
    assert decided.device == "cpu"
    assert decided.notes == ("running on the CPU: no NVIDIA driver is installed here",)


def test_a_gpu_is_used_if_there_is_one_and_not_forbidden() -> None:
    decided = plan(gpus=("Card",))
    assert (decided.device, decided.device_name, decided.strands) == ("gpu", "Card", 1)
    assert decided.notes == ()
    assert plan("runtime.device=cpu", gpus=("Card",)).device == "cpu"


def test_a_gpu_that_is_asked_for_and_missing_is_an_error_with_its_cause() -> None:
    with pytest.raises(UserError, match="device: gpu, but .*: no NVIDIA driver"):
        plan("runtime.device=gpu")


def test_micro_batches_fit_the_cache_and_come_out_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    decided = plan()
    assert (decided.strands, decided.micro_batch) == (2, 50)
    model = load_config(ROOT / "configs/mnist.yaml").model
    for batch, strands in ((1, 1), (7, 2), (1000, 3), (999, 2)):
        size = fitting_micro_batch(model.input_shape, model.layers, batch, strands)
        share = -(-batch // strands)
        assert 1 <= size <= min(share, 51)
        assert -(-share // size) * size - share < -(-share // size)  # no almost empty slice


def test_what_the_config_says_is_kept() -> None:
    decided = plan("runtime.strands=1", "runtime.micro_batch=10", "runtime.jit_compile=true")
    assert (decided.strands, decided.micro_batch, decided.jit_compile) == (1, 10, True)
    assert any("more than the" in note for note in plan("runtime.strands=999").notes)
    with pytest.raises(UserError, match=r"cannot be larger than training.batch_size \(1000\)"):
        plan("runtime.micro_batch=1001")


def test_jit_compile_is_a_plain_bool() -> None:
    assert plan().jit_compile is False


@pytest.mark.parametrize(
    ("log", "environment", "cause"),
    [
        ("", {"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES hides"),
        ("", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES hides"),
    ],
)
def test_the_cause_of_a_missing_gpu(log: str, environment: dict[str, str], cause: str) -> None:
    assert cause in why_no_gpu(log, environment)
