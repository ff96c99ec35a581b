"""Configuration: settings, where files go, and the registry of compression methods."""
