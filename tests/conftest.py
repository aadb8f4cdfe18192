"""What every test needs: one thread, and a cache folder of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

# A session that runs within a test forgets at its end what it has imported, and this registers operators: only once.
import torchvision  # noqa: F401
from torch import Tensor, nn

from compress.quantization.static import Quantized, quantize
from tests.nets import lively
from tests.workloads import tiny_net


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny networks run faster on one thread, repeat to the bit, and leave the other cores to whoever shares them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _not_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that a test runs is no process of pytest-xdist, though the test may run in one."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _own_inductor_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What Inductor compiles for tests goes with them; and headers are not worth precompiling for so few."""
    settings = {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("inductor")),
        "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def tiny_images() -> Tensor:
    """``[16, 3, 8, 8]``: typical inputs of the tiny network."""
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def tiny_dense() -> nn.Module:
    """The tiny network, with statistics as after some training; not to be changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively(tiny_net()).float()


@pytest.fixture(scope="session")
def tiny_int8(tiny_dense: nn.Module, tiny_images: Tensor) -> Quantized:
    """The tiny network in int8, compiled once for all tests; not to be changed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return quantize(tiny_dense, tiny_images, max_accuracy_drop=1.0)
    finally:
        torch.set_num_threads(before)
