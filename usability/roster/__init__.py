"""Rosters as OneRoster 1.2 CSV: `parse` reads a zip, `plan` compares it with the database, `apply` writes."""
