"""Connections to Redis, PostgreSQL and other people's databases."""
