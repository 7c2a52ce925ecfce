"""The addresses below /xapi/, one module each."""
