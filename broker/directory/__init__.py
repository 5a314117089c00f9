"""TokenClients from a directory of YAML files, where no CustomResourceDefinition can be installed."""
