"""What each page shows, prepared for its template."""
