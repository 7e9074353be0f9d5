"""The real parts that tests run against: Kafka, Postgres, receivers, the daemon's process."""
