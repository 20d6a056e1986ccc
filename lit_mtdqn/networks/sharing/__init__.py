"""What tasks share between observation and head: one trunk, experts to mix, or columns."""

from lit_mtdqn.networks.sharing.base import Shared, Sharing, TorsoFactory
from lit_mtdqn.networks.sharing.columns import Columns
from lit_mtdqn.networks.sharing.experts import Experts
from lit_mtdqn.networks.sharing.trunk import SharedTrunk

__all__ = ["Columns", "Experts", "Shared", "SharedTrunk", "Sharing", "TorsoFactory"]
