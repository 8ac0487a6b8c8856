"""Stand-ins for parts of the service, for faults that a real one cannot be made to have."""
