"""Stand-ins for parts of the service, where a fault cannot be made otherwise."""
