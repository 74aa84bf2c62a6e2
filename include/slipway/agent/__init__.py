"""The slot agent: the one part of the container stack that may speak to Docker, behind a token and few verbs."""
