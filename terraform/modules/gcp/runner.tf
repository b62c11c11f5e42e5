locals {
  # Names only: where Redis is. What to record comes with the launch.
  runner_environment = {
    SPILLWAY_LOG_FORMAT = "json"
    SPILLWAY_REDIS      = jsonencode(module.common.redis)
  }

  jobs = merge(
    { for cpu, size in module.common.size_classes : cpu => merge(size, { image = "runner" }) },
    { for cpu, size in module.common.page_classes : "page-${cpu}" => merge(size, { image = "page" }) if local.has_page },
  )
}

# A run can change neither size nor image, so there is a job for each size, and again for web pages, whose image has a browser.
# Everything in it is memory, the files too.
resource "google_cloud_run_v2_job" "runner" {
  for_each            = local.jobs
  project             = var.project_id
  location            = var.region
  name                = "${local.prefix}-runner-${each.key}"
  deletion_protection = var.deletion_protection
  labels              = merge(local.labels, { size_class = each.key })

  template {
    task_count  = 1
    parallelism = 1
    labels      = merge(local.labels, { size_class = each.key })

    template {
      # The dispatcher decides what is tried again.
      max_retries           = 0
      timeout               = "${var.task_hours * 3600}s"
      service_account       = google_service_account.runner.email
      execution_environment = "EXECUTION_ENVIRONMENT_GEN2"

      containers {
        name  = "runner"
        image = local.images[each.value.image]

        resources {
          limits = { cpu = tostring(each.value.cpu), memory = "${each.value.memory_mib}Mi" }
        }

        dynamic "env" {
          for_each = local.runner_environment

          content {
            name  = env.key
            value = env.value
          }
        }

        dynamic "env" {
          for_each = local.runner_secrets

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

      vpc_access {
        egress = var.network.egress

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
  }

  depends_on = [
    google_secret_manager_secret_iam_member.redis_ca, google_secret_manager_secret_iam_member.this, google_secret_manager_secret_version.redis_ca,
    google_secret_manager_secret_version.redis_password, google_secret_manager_secret_version.this,
  ]
}
