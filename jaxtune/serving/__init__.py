"""A saved model over HTTP: requests of many clients, in batches of few shapes."""
