"""Settings, wiring, command line, web server, scheduler: where the adapters meet the rules."""
