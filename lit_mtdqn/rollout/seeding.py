"""Seeds that never meet: training, selection and test.

Training seeds lie above all others, whatever the run's seed.
"""

from __future__ import annotations

import zlib

import numpy as np

VALIDATION_SEED = 1_000_000
TEST_SEED = 2_000_000
FIRST_TRAINING_SEED = 2**24
LAST_TRAINING_SEED = 2**31 - 2**20


def training_seed(run_seed: int, purpose: str, rank: int) -> int:
    """Return the seed of one purpose (a task's name, or a word) on one rank.

    It does not depend on other tasks, so adding one leaves the rest as they were.
    """
    entropy = [run_seed % 2**63, zlib.crc32(purpose.encode()), rank]
    draw = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
    return FIRST_TRAINING_SEED + draw % (LAST_TRAINING_SEED - FIRST_TRAINING_SEED)
