# What each part may do is JSON in roles/: read here, and by tests. Assignments say `principal_type`: without it Azure may not find
# an identity that was made just now.

locals {
  roles = { for part in ["attach", "dispatcher", "runner"] : part => jsondecode(file("${path.module}/roles/${part}.json")) }
}

resource "azurerm_user_assigned_identity" "dispatcher" {
  name                = "${local.prefix}-dispatcher"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  tags                = local.tags
}

resource "azurerm_user_assigned_identity" "runner" {
  name                = "${local.prefix}-runner"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  tags                = local.tags
}

resource "azurerm_role_definition" "this" {
  for_each          = local.roles
  name              = "Spillway ${local.global} ${each.key}"
  scope             = "/subscriptions/${var.subscription_id}"
  description       = each.value.description
  assignable_scopes = ["/subscriptions/${var.subscription_id}"]

  permissions {
    actions      = each.value.actions
    data_actions = each.value.data_actions
  }
}

resource "azurerm_role_assignment" "dispatcher" {
  scope              = azurerm_resource_group.runners.id
  role_definition_id = azurerm_role_definition.this["dispatcher"].role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.dispatcher.principal_id
  principal_type     = "ServicePrincipal"
}

resource "azurerm_role_assignment" "attach" {
  for_each           = { subnet = local.runner_subnet, identity = azurerm_user_assigned_identity.runner.id }
  scope              = each.value
  role_definition_id = azurerm_role_definition.this["attach"].role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.dispatcher.principal_id
  principal_type     = "ServicePrincipal"
}

resource "azurerm_role_assignment" "runner" {
  scope              = local.container_id
  role_definition_id = azurerm_role_definition.this["runner"].role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.runner.principal_id
  principal_type     = "ServicePrincipal"
}

resource "azurerm_role_assignment" "secrets" {
  for_each = merge(
    { for name, secret in azurerm_key_vault_secret.this : name => secret.resource_versionless_id },
    { for secret in azurerm_key_vault_secret.redis_password : "redis-password" => secret.resource_versionless_id },
  )
  scope                = each.value
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.dispatcher.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "pull" {
  for_each = { for part, principal in {
    dispatcher = azurerm_user_assigned_identity.dispatcher.principal_id
    runner     = azurerm_user_assigned_identity.runner.principal_id
  } : part => principal if(part == "runner" ? local.runners_pull : local.own_images[part]) }
  scope                = azurerm_container_registry.this[0].id
  role_definition_name = "AcrPull"
  principal_id         = each.value
  principal_type       = "ServicePrincipal"
}

# Roles take minutes until every part of Azure knows them.
resource "time_sleep" "roles" {
  create_duration = "180s"
  triggers = {
    roles = join(" ", concat([for role in azurerm_role_assignment.pull : role.id], [for role in azurerm_role_assignment.secrets : role.id]))
  }
}
