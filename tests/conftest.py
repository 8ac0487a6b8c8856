"""What every test may ask for."""

pytest_plugins = ["tests.kafka_fixtures", "tests.service_fixtures", "tests.stack_fixtures"]
