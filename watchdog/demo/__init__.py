"""The demo: sample targets that break and heal, an inbox that shows what people are told, and Watchdog between them."""
