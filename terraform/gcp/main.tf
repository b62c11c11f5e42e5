# Spillway in one region of Google Cloud. Everything a root has to decide is a variable; the rest is in ../modules/gcp.

provider "google" {
  project = var.project_id
  region  = var.region
}

module "spillway" {
  source = "../modules/gcp"

  name                = var.name
  environment         = var.environment
  labels              = var.labels
  project_id          = var.project_id
  region              = var.region
  livekit_url         = var.livekit_url
  images              = var.images
  network             = var.network
  redis               = var.redis
  storage             = var.storage
  limits              = var.limits
  dispatcher          = var.dispatcher
  size_classes        = var.size_classes
  events              = var.events
  secrets             = var.secrets
  secrets_version     = var.secrets_version
  existing_secrets    = var.existing_secrets
  budget              = var.budget
  alarms              = var.alarms
  enable_apis         = var.enable_apis
  deletion_protection = var.deletion_protection
  log_level           = var.log_level
}
