"""Procrastinate: canary jobs, periodic tasks and queue statistics."""
