# Its authority is its own, so the certificate is mounted; that is no secret, but Cloud Run mounts only secrets.

locals {
  redis_address = var.redis.create ? "${google_redis_instance.this[0].host}:${google_redis_instance.this[0].port}" : var.redis.address
  redis_ca      = var.redis.create && var.redis.tls
}

resource "google_redis_instance" "this" {
  count                   = var.redis.create ? 1 : 0
  project                 = var.project_id
  region                  = var.region
  name                    = local.prefix
  display_name            = "Spillway ${local.prefix}: psrpc, registry, tickets and queue"
  tier                    = var.redis.tier
  memory_size_gb          = var.redis.memory_gb
  redis_version           = "REDIS_7_2"
  authorized_network      = local.network
  connect_mode            = "DIRECT_PEERING"
  auth_enabled            = var.redis.password
  transit_encryption_mode = var.redis.tls ? "SERVER_AUTHENTICATION" : "DISABLED"
  labels                  = local.labels
  # Tickets and the registry are not a cache: nothing is thrown out to make room.
  redis_configs = { maxmemory-policy = "noeviction" }

  depends_on = [time_sleep.apis]
}

resource "google_secret_manager_secret" "redis_ca" {
  count     = local.redis_ca ? 1 : 0
  project   = var.project_id
  secret_id = "${local.global}-redis-ca"
  labels    = local.labels

  replication {
    auto {}
  }

  depends_on = [time_sleep.apis]
}

resource "google_secret_manager_secret_version" "redis_ca" {
  count       = local.redis_ca ? 1 : 0
  secret      = google_secret_manager_secret.redis_ca[0].id
  secret_data = join("\n", google_redis_instance.this[0].server_ca_certs[*].cert)

  # Between the two "latest" would be a version that is gone, and a task that starts then would fail.
  lifecycle {
    create_before_destroy = true
  }
}
