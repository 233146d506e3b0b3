"""Celery: canary jobs, queue statistics, and the schedules of RedBeat and django-celery-beat."""
