"""Everything that changes the database: recording, claiming, the outbox, registration, retention."""
