"""The teacher portal: pages rendered on the server, and the fragments they ask for."""
