# Spillway in one region of Azure. The root has the provider and hands its variables on; everything else is in ../modules/azure.

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true

  # Exactly what is used here. The provider's own list lacks Microsoft.App and has many more.
  resource_provider_registrations = "none"
  resource_providers_to_register = [
    "Microsoft.App", "Microsoft.Cache", "Microsoft.ContainerInstance", "Microsoft.ContainerRegistry", "Microsoft.KeyVault",
    "Microsoft.ManagedIdentity", "Microsoft.Network", "Microsoft.OperationalInsights", "Microsoft.Portal", "Microsoft.Storage",
    "microsoft.insights",
  ]

  features {
    resource_group {
      # Container groups of runners that are still there go with their group.
      prevent_deletion_if_contains_resources = false
    }
    log_analytics_workspace {
      # Else its name is kept for two weeks.
      permanently_delete_on_destroy = true
    }
  }
}

locals {
  # Every variable of the module that `var.spillway` may set. A null is the module's own default.
  unset = {
    for key in [
      "name", "environment", "tags", "location", "livekit_url", "images", "registry_sku", "network", "redis",
      "storage", "limits", "dispatcher", "secrets_version", "ticket_key_version", "vault_writers", "purge_protection",
      "existing_secrets", "budget", "alarms", "dashboard", "log_retention_days", "log_level", "settings",
    ] : key => null
  }
  spillway = merge(local.unset, var.spillway)
}

module "spillway" {
  source = "../modules/azure"

  name               = local.spillway.name
  environment        = local.spillway.environment
  tags               = local.spillway.tags
  location           = local.spillway.location
  subscription_id    = var.subscription_id
  livekit_url        = local.spillway.livekit_url
  images             = local.spillway.images
  registry_sku       = local.spillway.registry_sku
  network            = local.spillway.network
  redis              = local.spillway.redis
  storage            = local.spillway.storage
  limits             = local.spillway.limits
  dispatcher         = local.spillway.dispatcher
  secrets            = var.secrets
  secrets_version    = local.spillway.secrets_version
  ticket_key_version = local.spillway.ticket_key_version
  vault_writers      = local.spillway.vault_writers
  purge_protection   = local.spillway.purge_protection
  existing_secrets   = local.spillway.existing_secrets
  budget             = local.spillway.budget
  alarms             = local.spillway.alarms
  dashboard          = local.spillway.dashboard
  log_retention_days = local.spillway.log_retention_days
  log_level          = local.spillway.log_level
  settings           = local.spillway.settings
}
