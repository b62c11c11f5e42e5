# Terraform knows the names. Values are written once, past state and plan (secret_data_wo), or exist already.

locals {
  wanted_secrets = [for name in module.common.secrets : name if var.redis.password || name != "redis-password"]
  made_secrets   = [for name in local.wanted_secrets : name if !contains(keys(var.existing_secrets), name)]
  secret_ids     = merge({ for name, secret in google_secret_manager_secret.this : name => secret.secret_id }, var.existing_secrets)
  # Redis' own, which only Google knows.
  made_password = var.redis.create && contains(local.made_secrets, "redis-password")

  dispatcher_secrets = { for variable, name in module.common.dispatcher_secrets : variable => local.secret_ids[name] if contains(local.wanted_secrets, name) }
  runner_secrets     = { for variable, name in module.common.runner_secrets : variable => local.secret_ids[name] if contains(local.wanted_secrets, name) }
}

resource "google_secret_manager_secret" "this" {
  for_each  = toset(local.made_secrets)
  project   = var.project_id
  secret_id = "${local.prefix}-${each.key}"
  labels    = local.labels

  replication {
    auto {}
  }

  depends_on = [google_project_service.this]
}

resource "google_secret_manager_secret_version" "this" {
  for_each               = { for name, secret in google_secret_manager_secret.this : name => secret.id if !(local.made_password && name == "redis-password") && var.secrets_version > 0 }
  secret                 = each.value
  secret_data_wo         = var.secrets[each.key]
  secret_data_wo_version = var.secrets_version
}

resource "google_secret_manager_secret_version" "redis_password" {
  count                  = local.made_password ? 1 : 0
  secret                 = google_secret_manager_secret.this["redis-password"].id
  secret_data_wo         = google_redis_instance.this[0].auth_string
  secret_data_wo_version = 1
}
