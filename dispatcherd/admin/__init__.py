"""What an operator and a monitor see over HTTP."""
