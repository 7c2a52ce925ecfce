"""The calls under /api/v1/usability/."""
