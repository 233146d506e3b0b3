"""Watchdog: is the service, and the background work behind it, really doing its job?"""
