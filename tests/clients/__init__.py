"""Clients that others' generators make from our documents, against a server of ours."""
