"""The way to Postgres: the only package that speaks SQL."""
