"""Environments of our own."""

from lit_mtdqn.envs.suites import driving as driving
