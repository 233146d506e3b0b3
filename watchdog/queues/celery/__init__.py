"""Celery: canary jobs, and the schedules of RedBeat and django-celery-beat."""
