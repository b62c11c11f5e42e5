# Terraform knows the names. Values are written past state and plan (value_wo), or exist already.

locals {
  wanted_secrets = [for name in module.common.secrets : name if var.redis.password || name != "redis-password"]
  made_secrets   = [for name in local.wanted_secrets : name if !contains(keys(var.existing_secrets), name)]
  # Redis' own, which only Azure knows.
  made_password = var.redis.create && contains(local.made_secrets, "redis-password")
  # A ticket key must not change while recordings wait to start, so it is not written anew with LiveKit's.
  versions = { for name in local.made_secrets : name => name == "ticket-key" ? var.ticket_key_version : var.secrets_version if !(local.made_password && name == "redis-password") }
  # Written where a value is missing in spite of all; longer than a vault takes, so that nothing is overwritten by it.
  no_value = format("%070000d", 0)
  # Who writes the values: groups or persons by their object ids, else who applies this first.
  writers = length(var.vault_writers) > 0 ? { for id in var.vault_writers : id => id } : { first = data.azurerm_client_config.this.object_id }

  secret_ids = merge(
    { for name, secret in azurerm_key_vault_secret.this : name => secret.versionless_id },
    { for secret in azurerm_key_vault_secret.redis_password : "redis-password" => secret.versionless_id },
    var.existing_secrets,
  )
  dispatcher_secrets = { for variable, name in module.common.dispatcher_secrets : variable => name if contains(local.wanted_secrets, name) }
}

resource "azurerm_key_vault" "this" {
  name                       = module.common.vault
  resource_group_name        = azurerm_resource_group.this.name
  location                   = var.location
  tenant_id                  = data.azurerm_client_config.this.tenant_id
  sku_name                   = "standard"
  rbac_authorization_enabled = true
  purge_protection_enabled   = var.purge_protection
  soft_delete_retention_days = 7
  tags                       = local.tags
}

resource "azurerm_role_assignment" "writer" {
  for_each             = length(local.versions) > 0 || local.made_password ? local.writers : {}
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Secrets Officer"
  principal_id         = each.value

  lifecycle {
    # A second person who applies this must not take the role away from the first.
    ignore_changes = [principal_id]
  }
}

resource "time_sleep" "writer" {
  create_duration = "180s"
  triggers        = { roles = join(" ", [for role in azurerm_role_assignment.writer : role.id]) }
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

resource "azurerm_key_vault_secret" "this" {
  for_each         = local.versions
  key_vault_id     = azurerm_key_vault.this.id
  name             = each.key
  value_wo         = lookup(var.secrets, each.key, local.no_value)
  value_wo_version = each.value
  content_type     = "text/plain"
  tags             = local.tags

  lifecycle {
    precondition {
      condition     = contains(keys(var.secrets), each.key) || terraform_data.written[each.key].output != plantimestamp()
      error_message = "secrets: ${each.key} is written in this run, so TF_VAR_secrets must have its value."
    }
  }

  depends_on = [time_sleep.writer]
}

# Written again when Redis has another key: replaced, or its key made anew.
resource "azurerm_key_vault_secret" "redis_password" {
  count            = local.made_password ? 1 : 0
  key_vault_id     = azurerm_key_vault.this.id
  name             = "redis-password"
  value_wo         = azurerm_managed_redis.this[0].default_database[0].primary_access_key
  value_wo_version = parseint(substr(sha256(azurerm_managed_redis.this[0].default_database[0].primary_access_key), 0, 7), 16)
  content_type     = "text/plain"
  tags             = local.tags

  depends_on = [time_sleep.writer]
}
