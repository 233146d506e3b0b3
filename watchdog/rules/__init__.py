"""Verdicts about subjects, and when they become incidents. Pure."""

from watchdog.rules.alive import AliveTime
from watchdog.rules.engine import STATE_OF, Folded, Machines, fold, judge, state_of, turn
from watchdog.rules.policy import Policy

__all__ = ["STATE_OF", "AliveTime", "Folded", "Machines", "Policy", "fold", "judge", "state_of", "turn"]
