"""Environments of our own."""

from lit_mtdqn.envs.suites import contextual_cartpole as contextual_cartpole
from lit_mtdqn.envs.suites import driving as driving
from lit_mtdqn.envs.suites import gathering as gathering
