from pathlib import Path

import numpy as np
import pytest

from lit_mtdqn.rollout.recording import Recording
from lit_mtdqn.rollout.video import write_mp4
from lit_mtdqn.types import Episodes

av = pytest.importorskip("av", reason="needs pip install lit-mtdqn[video]")


def test_a_video_shows_every_frame_at_the_environments_own_speed(tmp_path: Path) -> None:
    # Odd sizes, of which the encoder takes none.
    frames = np.stack([np.full((31, 47, 3), 60 * i, np.uint8) for i in range(5)])
    outcome = Episodes("task", np.zeros(1), np.ones(1, int), None, np.zeros(1))
    write_mp4(Recording(frames, 0.05, outcome), tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as file:
        assert file.streams.video[0].average_rate == 20
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert shown[0].shape == (32, 48, 3)
    assert len(shown) == 5 + 30  # the last one for 1.5 s more
    assert [round(float(frame.mean()), -1) for frame in shown[:5]] == [0, 60, 120, 180, 240]
