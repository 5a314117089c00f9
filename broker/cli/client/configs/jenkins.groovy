pipeline {
  agent any
  stages {
    stage('deploy') {
      steps {
        withCredentials([string(credentialsId: '<<namespace>>-<<name>>', variable: 'TOKENBROKER_SECRET')]) {
          sh '''
            set +x
            export KUBECONFIG="$(mktemp)"
            trap 'rm -f "$KUBECONFIG"' EXIT
            printf 'user = "<<client>>:%s"' "$TOKENBROKER_SECRET" | curl -sS --fail-with-body -K - -H 'Content-Type: application/json' -d '{"grant": "<<grant>>", "format": "kubeconfig"}' <<broker_url>>/v1/tokens > "$KUBECONFIG" || { cat "$KUBECONFIG"; exit 1; }
            kubectl get pods
          '''
        }
      }
    }
  }
}
