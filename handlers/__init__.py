"""The Slack surface: a module per journey, each parses, makes one service call, and answers."""
