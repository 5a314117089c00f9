printf 'user = "<<client>>:%s"' "$(cat <<name>>.secret)" |
    curl --silent --show-error --fail-with-body --config - --cacert broker-ca.crt \
        --header 'Content-Type: application/json' \
        --data '{"grant": "<<grant>>", "format": "kubeconfig", "exec": true}' \
        --output <<name>>.kubeconfig <<broker_url>>/v1/tokens
