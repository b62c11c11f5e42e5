# Spillway in one region of Azure. Everything a root has to decide is a variable; the rest is in ../modules/azure.

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true

  features {}
}

module "spillway" {
  source = "../modules/azure"

  name               = var.name
  environment        = var.environment
  tags               = var.tags
  location           = var.location
  subscription_id    = var.subscription_id
  livekit_url        = var.livekit_url
  images             = var.images
  network            = var.network
  redis              = var.redis
  storage            = var.storage
  limits             = var.limits
  dispatcher         = var.dispatcher
  secrets            = var.secrets
  secrets_version    = var.secrets_version
  existing_secrets   = var.existing_secrets
  budget             = var.budget
  alarms             = var.alarms
  log_retention_days = var.log_retention_days
  log_level          = var.log_level
}
