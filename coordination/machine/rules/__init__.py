"""The rules: each decides one command. It rejects before its first event, or yields events and answers."""
