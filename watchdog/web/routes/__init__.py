"""HTTP routes: what is served at each path, to whom, and in which format."""
