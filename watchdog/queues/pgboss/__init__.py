"""pg-boss: canary jobs, schedules and queue statistics."""
