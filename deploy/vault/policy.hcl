# What the token broker may do in Vault or OpenBao: keep tokens up to date, never read one.
# KV version 2 is mounted at secret/; the broker's prefix in it is tokenbroker/.

# Write a new version of a token. Reading it is for those who use it.
path "secret/data/tokenbroker/*" {
  capabilities = ["create", "update"]
}

# Versions, who manages a path and until when; delete removes all versions of a client that is gone.
path "secret/metadata/tokenbroker/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

# The role gives no default policy, so the broker's own token gets this from here.
path "auth/token/renew-self" {
  capabilities = ["update"]
}
