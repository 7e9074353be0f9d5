"""What makes the generated parts of the documentation; each is run by hand or by conf.py."""
