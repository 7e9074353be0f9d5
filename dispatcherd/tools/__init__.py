"""Tools for whoever receives webhooks or implements signatures: verify, send, receive, check."""
