"""Authentication of operators and programs: API keys, sessions, and limits on failed attempts."""
