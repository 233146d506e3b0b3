"""The cards of a probe's page: each builds one section from what the probe stored, with a template of its own."""
