vault {
  address = "<<vault_url>>"
  ca_cert = "/etc/vault-agent/vault-ca.crt"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/etc/vault-agent/role-id"
      secret_id_file_path                 = "/etc/vault-agent/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

template_config {
  static_secret_render_interval = "<<poll_interval>>"
}

template {
  destination          = "/run/tokenbroker/kubeconfig"
  perms                = "0600"
  error_on_missing_key = true
  contents             = "{{ with secret \"<<vault_data_path>>\" }}{{ .Data.data.kubeconfig }}{{ end }}"
}
