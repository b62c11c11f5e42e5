# Terraform knows the names. Values are written once, outside of state and plan (secret_string_wo), or outside of Terraform.

locals {
  wanted_secrets = [for name in module.common.secrets : name if var.redis.password || name != "redis-password"]
  made_secrets   = [for name in local.wanted_secrets : name if !contains(keys(var.existing_secrets), name)]
  secret_arns    = merge({ for name, secret in aws_secretsmanager_secret.this : name => secret.arn }, var.existing_secrets)

  dispatcher_secrets = { for variable, name in module.common.dispatcher_secrets : variable => local.secret_arns[name] if contains(local.wanted_secrets, name) }
  runner_secrets     = { for variable, name in module.common.runner_secrets : variable => local.secret_arns[name] if contains(local.wanted_secrets, name) }
}

resource "aws_secretsmanager_secret" "this" {
  for_each                = toset(local.made_secrets)
  name                    = "${local.prefix}/${each.key}"
  description             = "Spillway: ${each.key}"
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = 7
  tags                    = local.tags
}

resource "aws_secretsmanager_secret_version" "this" {
  for_each                 = var.secrets_version > 0 ? aws_secretsmanager_secret.this : {}
  secret_id                = each.value.id
  secret_string_wo         = var.secrets[each.key]
  secret_string_wo_version = var.secrets_version
}
