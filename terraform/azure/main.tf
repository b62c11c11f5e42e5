# Spillway in one region of Azure. The root has the provider and hands its variables on; everything else is in ../modules/azure.

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true

  features {}
}

locals {
  # Every variable of the module that `var.spillway` may set. A null is the module's own default.
  unset = {
    for key in [
      "name", "environment", "tags", "location", "livekit_url", "images", "network", "redis", "storage", "limits",
      "dispatcher", "secrets_version", "existing_secrets", "budget", "alarms", "dashboard", "log_retention_days",
      "log_level", "settings",
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
  network            = local.spillway.network
  redis              = local.spillway.redis
  storage            = local.spillway.storage
  limits             = local.spillway.limits
  dispatcher         = local.spillway.dispatcher
  secrets            = var.secrets
  secrets_version    = local.spillway.secrets_version
  existing_secrets   = local.spillway.existing_secrets
  budget             = local.spillway.budget
  alarms             = local.spillway.alarms
  dashboard          = local.spillway.dashboard
  log_retention_days = local.spillway.log_retention_days
  log_level          = local.spillway.log_level
  settings           = local.spillway.settings
}
