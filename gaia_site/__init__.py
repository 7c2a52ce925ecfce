"""The site: settings, addresses, errors, keys, health, and the commands that run it all."""
