"""HTTP routes: they parse requests, read the store and render pages."""
