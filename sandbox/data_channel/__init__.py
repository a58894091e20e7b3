"""Session Manager's data channel, as both ends of it speak: the standard library only, for the plugin starts often."""
