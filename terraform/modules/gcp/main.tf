# One installation in one region: dispatchers as a service that never sleeps, runners as executions of jobs, Redis, a bucket.
# network -> redis, storage, secrets -> iam -> runner, dispatcher -> events -> watch, budget.

# Read while planning, so Cloud Resource Manager must be enabled before; not read where the number is given.
data "google_project" "this" {
  count      = var.project_number == null ? 1 : 0
  project_id = var.project_id
}

locals {
  project_number = coalesce(var.project_number, one(data.google_project.this[*].number))

  prefix = module.common.prefix
  # A project has one list of most names for all regions.
  global = module.common.global
  labels = module.common.labels
  apis = [
    "artifactregistry", "billingbudgets", "cloudresourcemanager", "compute", "iam", "logging", "monitoring", "pubsub", "redis", "run",
    "secretmanager", "storage",
  ]

  # An image of ours is the latest of its name, or one digest of it. Beside a runner of another registry there is no image of
  # pages that could be guessed.
  has_page     = var.images.page == null ? try(startswith(var.images.runner, "sha256:"), true) : var.images.page != ""
  own_images   = { for part in concat(["dispatcher", "runner"], local.has_page ? ["page"] : []) : part => try(startswith(var.images[part], "sha256:"), true) }
  own_registry = anytrue(values(local.own_images))
  registry     = local.own_registry ? "${google_artifact_registry_repository.this[0].location}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.this[0].repository_id}" : null
  images = {
    for part, own in local.own_images : part => (
      !own ? var.images[part] : var.images[part] == null ? "${local.registry}/${part}:latest" : "${local.registry}/${part}@${var.images[part]}"
    )
  }

  targets = [{
    name     = "gcp/${var.region}"
    launcher = "cloud-run"
    capacity = "on-demand"
    region   = var.region
    arch     = "x86_64"
    nat      = var.network.egress == "ALL_TRAFFIC"
    options = {
      project   = var.project_id
      location  = var.region
      container = "runner"
      jobs = [
        for key, job in local.jobs :
        { name = "${local.prefix}-runner-${key}", cpu_milli = job.cpu * 1000, memory_mib = job.memory_mib, disk_gib = 0, page = job.image == "page" }
      ]
    }
  }]
}

module "common" {
  source = "../common"

  name         = var.name
  environment  = var.environment
  place        = var.region
  unique       = var.project_id
  tags         = var.labels
  livekit_url  = var.livekit_url
  limits       = var.limits
  log_level    = var.log_level
  settings     = var.settings
  targets      = local.targets
  size_classes = var.size_classes

  redis = {
    address      = local.redis_address
    db           = var.redis.db
    username     = var.redis.username
    tls          = var.redis.tls
    ca_cert_file = var.redis.create && var.redis.tls ? "/etc/spillway/redis-ca.pem" : null
  }
  storage = {
    prefix = var.storage.prefix == "" ? null : var.storage.prefix
    gcp    = { bucket = local.bucket }
  }
}

resource "google_project_service" "this" {
  for_each           = var.enable_apis ? toset(local.apis) : toset([])
  project            = var.project_id
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}

# An API that was enabled just now answers 403 for a while, and the provider does not wait for every one of them.
resource "time_sleep" "apis" {
  create_duration = var.enable_apis ? "90s" : "0s"
  triggers        = { apis = join(" ", sort(keys(google_project_service.this))) }
}

resource "google_artifact_registry_repository" "this" {
  count         = local.own_registry ? 1 : 0
  project       = var.project_id
  location      = var.region
  repository_id = local.prefix
  description   = "Images of dispatcher, runner and page"
  format        = "DOCKER"
  labels        = local.labels

  depends_on = [time_sleep.apis]
}
