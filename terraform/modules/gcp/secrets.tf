# Terraform knows the names. Values are written past state and plan (secret_data_wo), or exist already.

locals {
  wanted_secrets = [for name in module.common.secrets : name if var.redis.password || name != "redis-password"]
  made_secrets   = [for name in local.wanted_secrets : name if !contains(keys(var.existing_secrets), name)]
  secret_ids     = merge({ for name, secret in google_secret_manager_secret.this : name => secret.secret_id }, var.existing_secrets)
  # Redis' own, which only Google knows.
  made_password = var.redis.create && contains(local.made_secrets, "redis-password")
  # A ticket key must not change while recordings wait to start, so it is not written anew with LiveKit's.
  versions = { for name in local.made_secrets : name => name == "ticket-key" ? var.ticket_key_version : var.secrets_version if !(local.made_password && name == "redis-password") }
  # Written where a value is missing in spite of all; longer than Secret Manager takes, so that nothing is overwritten by it.
  no_value = format("%070000d", 0)

  dispatcher_secrets = { for variable, name in module.common.dispatcher_secrets : variable => local.secret_ids[name] if contains(local.wanted_secrets, name) }
  runner_secrets     = { for variable, name in module.common.runner_secrets : variable => local.secret_ids[name] if contains(local.wanted_secrets, name) }
}

resource "google_secret_manager_secret" "this" {
  for_each  = toset(local.made_secrets)
  project   = var.project_id
  secret_id = "${local.global}-${each.key}"
  labels    = local.labels

  replication {
    auto {}
  }

  depends_on = [time_sleep.apis]
}

# When each version was begun: values are needed in that run and in no other, so that every other plan works without them.
resource "terraform_data" "written" {
  for_each         = local.versions
  input            = plantimestamp()
  triggers_replace = each.value

  lifecycle {
    ignore_changes = [input]
  }
}

# A new version is there before the old one goes: "latest" must not be one that is gone while a task starts.
resource "google_secret_manager_secret_version" "this" {
  for_each               = local.versions
  secret                 = google_secret_manager_secret.this[each.key].id
  secret_data_wo         = lookup(var.secrets, each.key, local.no_value)
  secret_data_wo_version = each.value
  deletion_policy        = "DISABLE"

  lifecycle {
    create_before_destroy = true

    precondition {
      condition     = contains(keys(var.secrets), each.key) || terraform_data.written[each.key].output != plantimestamp()
      error_message = "secrets: ${each.key} is written in this run, so TF_VAR_secrets must have its value."
    }
  }
}

# Written again when Redis has another password: replaced, or changed by hand.
resource "google_secret_manager_secret_version" "redis_password" {
  count                  = local.made_password ? 1 : 0
  secret                 = google_secret_manager_secret.this["redis-password"].id
  secret_data_wo         = google_redis_instance.this[0].auth_string
  secret_data_wo_version = parseint(substr(sha256(google_redis_instance.this[0].auth_string), 0, 7), 16)
  deletion_policy        = "DISABLE"

  lifecycle {
    create_before_destroy = true
  }
}
