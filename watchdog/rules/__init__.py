"""Verdicts about subjects, and when they become incidents. Pure."""

from watchdog.rules.alive import AliveTime
from watchdog.rules.engine import AT_ONCE, STATE_OF, Folded, Machines, fold, judge, state_of, turn
from watchdog.rules.policy import Policy

__all__ = ["AT_ONCE", "STATE_OF", "AliveTime", "Folded", "Machines", "Policy", "fold", "judge", "state_of", "turn"]
