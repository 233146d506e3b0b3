"""The content of each page, loaded from the store and prepared for its template."""
