"""All that talks to Kubernetes."""
