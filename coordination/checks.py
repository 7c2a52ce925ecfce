"""System checks of the coordination app."""
