"""What every call of the API shares: the endpoint class, parsers, addresses, schema and documentation."""
