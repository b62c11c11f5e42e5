# Spillway in one region of Google Cloud. The root has the provider and hands its variables on; everything else is in ../modules/gcp.

provider "google" {
  project = var.project_id
  region  = var.region

  # A budget is asked for in the name of this project; with a person's credentials Google refuses it otherwise.
  user_project_override = true
  billing_project       = var.project_id
}

locals {
  # Every variable of the module that `var.spillway` may set. A null is the module's own default.
  unset = {
    for key in [
      "name", "environment", "labels", "project_number", "livekit_url", "images", "network", "redis", "storage",
      "limits", "dispatcher", "size_classes", "task_hours", "events", "secrets_version", "ticket_key_version",
      "existing_secrets", "budget", "alarms", "dashboard", "enable_apis", "deletion_protection", "log_level",
      "settings",
    ] : key => null
  }
  spillway = merge(local.unset, var.spillway)
}

module "spillway" {
  source = "../modules/gcp"

  name                = local.spillway.name
  environment         = local.spillway.environment
  labels              = local.spillway.labels
  project_id          = var.project_id
  project_number      = local.spillway.project_number
  region              = var.region
  livekit_url         = local.spillway.livekit_url
  images              = local.spillway.images
  network             = local.spillway.network
  redis               = local.spillway.redis
  storage             = local.spillway.storage
  limits              = local.spillway.limits
  dispatcher          = local.spillway.dispatcher
  size_classes        = local.spillway.size_classes
  task_hours          = local.spillway.task_hours
  events              = local.spillway.events
  secrets             = var.secrets
  secrets_version     = local.spillway.secrets_version
  ticket_key_version  = local.spillway.ticket_key_version
  existing_secrets    = local.spillway.existing_secrets
  budget              = local.spillway.budget
  alarms              = local.spillway.alarms
  dashboard           = local.spillway.dashboard
  enable_apis         = local.spillway.enable_apis
  deletion_protection = local.spillway.deletion_protection
  log_level           = local.spillway.log_level
  settings            = local.spillway.settings
}
