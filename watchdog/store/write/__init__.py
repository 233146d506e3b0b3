"""Everything that changes the database: recording, claiming, delivering, retention."""
