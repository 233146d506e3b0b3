"""The configuration: YAML 1.2 in, frozen models out, or one line per problem. Importing this package loads nothing:
`watchdog exec` reads a few fields without pydantic."""
