# Spillway in one region of AWS. The root has the provider and hands its variables on; everything else is in ../modules/aws.

provider "aws" {
  region = var.region

  default_tags {
    tags = { managed_by = "terraform" }
  }
}

locals {
  # Every variable of the module that `var.spillway` may set. A null is the module's own default.
  unset = {
    for key in [
      "name", "environment", "tags", "livekit_url", "images", "architecture", "network", "redis", "storage", "limits",
      "dispatcher", "runner", "settle_concurrency", "settle_endpoints", "secrets_version", "ticket_key_version",
      "secret_recovery_days", "existing_secrets", "budget", "alarms", "dashboard", "container_insights",
      "activate_cost_tags", "log_retention_days", "kms_key_arn", "permissions_boundary", "log_level", "settings",
    ] : key => null
  }
  spillway = merge(local.unset, var.spillway)
}

module "spillway" {
  source = "../modules/aws"

  name                 = local.spillway.name
  environment          = local.spillway.environment
  tags                 = local.spillway.tags
  livekit_url          = local.spillway.livekit_url
  images               = local.spillway.images
  architecture         = local.spillway.architecture
  network              = local.spillway.network
  redis                = local.spillway.redis
  storage              = local.spillway.storage
  limits               = local.spillway.limits
  dispatcher           = local.spillway.dispatcher
  runner               = local.spillway.runner
  settle_concurrency   = local.spillway.settle_concurrency
  settle_endpoints     = local.spillway.settle_endpoints
  secrets              = var.secrets
  secrets_version      = local.spillway.secrets_version
  ticket_key_version   = local.spillway.ticket_key_version
  secret_recovery_days = local.spillway.secret_recovery_days
  existing_secrets     = local.spillway.existing_secrets
  budget               = local.spillway.budget
  alarms               = local.spillway.alarms
  dashboard            = local.spillway.dashboard
  container_insights   = local.spillway.container_insights
  activate_cost_tags   = local.spillway.activate_cost_tags
  log_retention_days   = local.spillway.log_retention_days
  kms_key_arn          = local.spillway.kms_key_arn
  permissions_boundary = local.spillway.permissions_boundary
  log_level            = local.spillway.log_level
  settings             = local.spillway.settings
}
