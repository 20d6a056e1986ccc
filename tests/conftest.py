import os
import signal
from collections.abc import Iterator

import pytest
import torch

# One thread per test process; tests run side by side.
torch.set_num_threads(1)
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    """Undo what the command line does to the process."""
    torch.manual_seed(0)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)
