"""YAML, environment and credentials in; one frozen `Config` out, or an error that helps."""
