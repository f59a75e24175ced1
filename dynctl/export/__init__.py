"""Plans and topologies written for others to run, and DynamoGraphDeployments read back. Pure."""
