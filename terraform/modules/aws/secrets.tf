# Terraform knows the names. Values are written outside of state and plan (secret_string_wo), or exist already.

locals {
  wanted_secrets = [for name in module.common.secrets : name if var.redis.password || name != "redis-password"]
  made_secrets   = [for name in local.wanted_secrets : name if !contains(keys(var.existing_secrets), name)]
  secret_arns    = merge({ for name, secret in aws_secretsmanager_secret.this : name => secret.arn }, var.existing_secrets)
  # A ticket key must not change while recordings wait to start, so it is not written anew with LiveKit's.
  versions = { for name in local.made_secrets : name => name == "ticket-key" ? var.ticket_key_version : var.secrets_version }
  # Written where a value is missing in spite of all; longer than Secrets Manager takes, so that nothing is overwritten by it.
  no_value = format("%070000d", 0)

  dispatcher_secrets = { for variable, name in module.common.dispatcher_secrets : variable => local.secret_arns[name] if contains(local.wanted_secrets, name) }
  runner_secrets     = { for variable, name in module.common.runner_secrets : variable => local.secret_arns[name] if contains(local.wanted_secrets, name) }
}

resource "aws_secretsmanager_secret" "this" {
  for_each                = toset(local.made_secrets)
  name                    = "${local.prefix}/${each.key}"
  description             = "Spillway: ${each.key}"
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.secret_recovery_days
  tags                    = local.tags
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

resource "aws_secretsmanager_secret_version" "this" {
  for_each                 = local.versions
  secret_id                = aws_secretsmanager_secret.this[each.key].id
  secret_string_wo         = lookup(var.secrets, each.key, local.no_value)
  secret_string_wo_version = each.value

  lifecycle {
    precondition {
      condition     = contains(keys(var.secrets), each.key) || terraform_data.written[each.key].output != plantimestamp()
      error_message = "secrets: ${each.key} is written in this run, so TF_VAR_secrets must have its value."
    }
  }
}
