# Spillway in one region of AWS. Everything a root has to decide is a variable; the rest is in ../modules/aws.

provider "aws" {
  region = var.region

  default_tags {
    tags = { managed_by = "terraform" }
  }
}

module "spillway" {
  source = "../modules/aws"

  name               = var.name
  environment        = var.environment
  tags               = var.tags
  livekit_url        = var.livekit_url
  images             = var.images
  architecture       = var.architecture
  network            = var.network
  redis              = var.redis
  storage            = var.storage
  limits             = var.limits
  dispatcher         = var.dispatcher
  runner             = var.runner
  secrets            = var.secrets
  secrets_version    = var.secrets_version
  existing_secrets   = var.existing_secrets
  budget             = var.budget
  alarms             = var.alarms
  log_level          = var.log_level
  log_retention_days = var.log_retention_days
}
