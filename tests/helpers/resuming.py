"""Whether a run can be gone on with as it was begun."""

import json
from pathlib import Path

import yaml

from lit_mtdqn.cli.resume import check_resumed_model, read_hyperparameters


def check_goes_on(folder: Path) -> None:
    """Refuse a finished run whose own configuration its checkpoint would not be resumed by."""
    last = folder / "checkpoints" / "last.ckpt"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    check_resumed_model(read_hyperparameters(last), json.dumps(config), "fit", last)
