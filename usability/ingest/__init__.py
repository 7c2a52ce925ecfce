"""From a request's bytes to durable rows: decode, encode, commit together, hand over to detection."""
