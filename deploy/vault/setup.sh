#!/bin/sh
# Prepares Vault or OpenBao for the token broker. Running it again changes nothing, or applies new settings.
#
# The CLI's own variables say which server and who you are: VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT
# (or BAO_ADDR, BAO_TOKEN, BAO_CACERT).
# Required:
#   KUBERNETES_HOST     URL of the API server, as Vault reaches it
#   KUBERNETES_CA_FILE  the CA certificate of the API server
# Optional:
#   REVIEWER_JWT_FILE   token of the account in reviewer.yaml. Leave it out only when Vault runs as a pod
#                       of that cluster, with that account's rights
#   TOKEN_TTL           lifetime of the broker's Vault token; the broker renews it (default 20m)
#   TOKEN_MAX_TTL       when the broker has to log in anew (default 24h)
#   VAULT_CLI           vault or bao (default: the one that is installed)
set -eu

: "${KUBERNETES_HOST:?URL of the API server}" "${KUBERNETES_CA_FILE:?file with the CA certificate of the API server}"
cli=${VAULT_CLI:-$(command -v vault || command -v bao)} || {
  echo "neither vault nor bao is installed; set VAULT_CLI" >&2
  exit 1
}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

# 1. A KV version 2 engine at secret/ and the kubernetes login at kubernetes/.
if ! "$cli" read sys/mounts/secret/tune >/dev/null 2>&1; then
  "$cli" secrets enable -path=secret -version=2 kv
fi
if ! "$cli" read sys/auth/kubernetes/tune >/dev/null 2>&1; then
  "$cli" auth enable kubernetes
fi

# 2. Whom Vault asks about a token that somebody logs in with.
set -- "kubernetes_host=$KUBERNETES_HOST" "kubernetes_ca_cert=@$KUBERNETES_CA_FILE"
if [ -n "${REVIEWER_JWT_FILE:-}" ]; then
  set -- "$@" "token_reviewer_jwt=@$REVIEWER_JWT_FILE"
fi
"$cli" write auth/kubernetes/config "$@"

# 3. What the broker may do.
"$cli" policy write tokenbroker "$here/policy.hcl"

# 4. Who is the broker: one account, and only with a token that is meant for Vault.
"$cli" write auth/kubernetes/role/tokenbroker \
  bound_service_account_names=tokenbroker \
  bound_service_account_namespaces=tokenbroker \
  audience=vault \
  token_policies=tokenbroker \
  token_no_default_policy=true \
  token_ttl="${TOKEN_TTL:-20m}" \
  token_max_ttl="${TOKEN_MAX_TTL:-24h}"
