"""Recordings as videos."""

from __future__ import annotations

import importlib
import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lit_mtdqn.rollout.recording import LAST_FRAME, Recording


def require_encoder(name: str) -> None:
    """Refuse to make videos where nothing can.

    Args:
        name: What the user asked for it by, for the complaint.

    Raises:
        ValueError: If PyAV is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise ValueError(
            f"`{name}` must have its packages installed. Got 'mp4' without av: run "
            "`pip install 'lit-mtdqn[video]'`, or take gif."
        )


def write_mp4(recording: Recording, path: str | Path) -> None:
    """Write a recording as H.264, at the environment's own speed; the last frame stays for a while.

    Args:
        recording: What was filmed.
        path: File to write.
    """
    av: Any = importlib.import_module("av")
    rate = Fraction(1.0 / recording.seconds).limit_denominator(1000)
    still = round(LAST_FRAME / recording.seconds)
    frames = [*recording.frames, *[recording.frames[-1]] * still]
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=rate)
        height, width = _even(frames[0]).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(_even(frame), format="rgb24")
            file.mux(stream.encode(picture))
        file.mux(stream.encode())


def _even(frame: np.ndarray) -> np.ndarray:
    """Return a picture of even height and width, as its colours are stored by fours."""
    missing = [(0, size % 2) for size in frame.shape[:2]]
    return np.ascontiguousarray(np.pad(frame, [*missing, (0, 0)], mode="edge"))
