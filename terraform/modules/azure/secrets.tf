# Terraform knows the names. Values are written once, past state and plan (value_wo), or exist already.

locals {
  wanted_secrets = [for name in module.common.secrets : name if var.redis.password || name != "redis-password"]
  made_secrets   = [for name in local.wanted_secrets : name if !contains(keys(var.existing_secrets), name)]
  # Redis' own, which only Azure knows.
  made_password = var.redis.create && contains(local.made_secrets, "redis-password")
  written       = var.secrets_version > 0 ? [for name in local.made_secrets : name if !(local.made_password && name == "redis-password")] : []

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
  purge_protection_enabled   = true
  soft_delete_retention_days = 7
  tags                       = local.tags
}

# Who applies this writes the values.
resource "azurerm_role_assignment" "writer" {
  count                = length(local.written) > 0 || local.made_password ? 1 : 0
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Secrets Officer"
  principal_id         = data.azurerm_client_config.this.object_id
}

resource "azurerm_key_vault_secret" "this" {
  for_each         = toset(local.written)
  key_vault_id     = azurerm_key_vault.this.id
  name             = each.key
  value_wo         = var.secrets[each.key]
  value_wo_version = var.secrets_version
  content_type     = "text/plain"
  tags             = local.tags

  depends_on = [azurerm_role_assignment.writer]
}

resource "azurerm_key_vault_secret" "redis_password" {
  count            = local.made_password ? 1 : 0
  key_vault_id     = azurerm_key_vault.this.id
  name             = "redis-password"
  value_wo         = azurerm_managed_redis.this[0].default_database[0].primary_access_key
  value_wo_version = 1
  content_type     = "text/plain"
  tags             = local.tags

  depends_on = [azurerm_role_assignment.writer]
}
