"""The demo: sample targets that fail and recover, and an inbox that shows the alerts."""
