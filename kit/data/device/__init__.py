"""Images on the device that trains: kept there, gathered there, augmented there, or copied there ahead of use."""
