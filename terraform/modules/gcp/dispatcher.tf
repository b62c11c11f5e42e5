# A service, not a worker pool: the ends of executions are pushed to it. Its CPU is always on, and it is not reachable from outside.

resource "google_cloud_run_v2_service" "dispatcher" {
  project             = var.project_id
  location            = var.region
  name                = "${local.prefix}-dispatcher"
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY"
  deletion_protection = var.deletion_protection
  labels              = local.labels

  template {
    service_account       = google_service_account.dispatcher.email
    execution_environment = "EXECUTION_ENVIRONMENT_GEN2"
    labels                = local.labels

    scaling {
      min_instance_count = var.dispatcher.count
      max_instance_count = var.dispatcher.count
    }

    containers {
      name  = "dispatcher"
      image = local.images["dispatcher"]

      ports {
        container_port = 8080
      }

      resources {
        cpu_idle = false
        limits   = { cpu = tostring(var.dispatcher.cpu), memory = "${var.dispatcher.memory_mib}Mi" }
      }

      startup_probe {
        period_seconds    = 5
        failure_threshold = 24

        http_get {
          path = "/healthz"
        }
      }

      liveness_probe {
        period_seconds    = 30
        failure_threshold = 4

        http_get {
          path = "/healthz"
        }
      }

      dynamic "env" {
        for_each = module.common.environment

        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.dispatcher_secrets

        content {
          name = env.key

          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }

      dynamic "volume_mounts" {
        for_each = local.redis_ca ? ["redis-ca"] : []

        content {
          name       = volume_mounts.value
          mount_path = "/etc/spillway"
        }
      }
    }

    # To Redis; Google's APIs are reached without it.
    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"

      network_interfaces {
        network    = local.network
        subnetwork = local.subnetwork
      }
    }

    dynamic "volumes" {
      for_each = local.redis_ca ? ["redis-ca"] : []

      content {
        name = volumes.value

        secret {
          secret = google_secret_manager_secret.redis_ca[0].secret_id

          items {
            path    = "redis-ca.pem"
            version = "latest"
          }
        }
      }
    }
  }

  depends_on = [
    google_secret_manager_secret_iam_member.redis_ca, google_secret_manager_secret_iam_member.this, google_secret_manager_secret_version.redis_ca,
    google_secret_manager_secret_version.redis_password, google_secret_manager_secret_version.this,
  ]
}
