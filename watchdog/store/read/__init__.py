"""Read-only queries for pages, tools and commands."""
