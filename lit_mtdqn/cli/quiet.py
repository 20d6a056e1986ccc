"""Third-party messages that say nothing to the user of a run, dropped one by one."""

from __future__ import annotations

import logging
import os
import warnings

ADVERTISEMENT = "\N{ELECTRIC LIGHT BULB} Tip"


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(ADVERTISEMENT)


def quieten() -> None:
    """Drop Lightning's advertisement and a deprecation between Lightning 2.6 and PyTorch 2.13."""
    if not any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        # Gymnasium films with pygame, which calls a missing display an error.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", message=r"LightningCLI's args parameter is intended")
    # True of an evaluation too, which needs none of them.
    warnings.filterwarnings("ignore", message=r"Be aware that when using `ckpt_path`, callbacks")
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
