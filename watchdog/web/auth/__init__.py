"""API keys, sessions and the throttle on failed sign-ins."""
