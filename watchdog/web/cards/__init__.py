"""A probe kind's own section of its page."""
