# What each part may do is JSON in roles/: read here, and by tests.

locals {
  roles = { for part in ["dispatcher", "runner"] : part => jsondecode(file("${path.module}/roles/${part}.json")) }

  # Who reads which secret: a pair for each.
  readers = merge(
    { for name in distinct(values(module.common.dispatcher_secrets)) : "dispatcher/${name}" => { member = "dispatcher", secret = name } if contains(local.wanted_secrets, name) },
    { for name in distinct(values(module.common.runner_secrets)) : "runner/${name}" => { member = "runner", secret = name } if contains(local.wanted_secrets, name) },
  )
  members = {
    dispatcher = "serviceAccount:${google_service_account.dispatcher.email}"
    runner     = "serviceAccount:${google_service_account.runner.email}"
  }
}

resource "google_service_account" "dispatcher" {
  project      = var.project_id
  account_id   = "${module.common.short}-dispatch"
  display_name = "Spillway ${local.prefix}: dispatchers"
  description  = "Runs, watches and cancels runners' jobs"

  depends_on = [time_sleep.apis]
}

resource "google_service_account" "runner" {
  project      = var.project_id
  account_id   = "${module.common.short}-runner"
  display_name = "Spillway ${local.prefix}: runners"
  description  = "Uploads into one bucket"

  depends_on = [time_sleep.apis]
}

resource "google_project_iam_custom_role" "this" {
  for_each    = local.roles
  project     = var.project_id
  role_id     = replace("${local.global}_${each.key}", "-", "_")
  title       = "${each.value.title} (${local.global})"
  description = each.value.description
  permissions = each.value.permissions

  depends_on = [time_sleep.apis]
}

resource "google_cloud_run_v2_job_iam_member" "dispatcher" {
  for_each = google_cloud_run_v2_job.runner
  project  = var.project_id
  location = var.region
  name     = each.value.name
  role     = google_project_iam_custom_role.this["dispatcher"].id
  member   = local.members.dispatcher
}

# A run with a service account is an act as that account.
resource "google_service_account_iam_member" "runner" {
  service_account_id = google_service_account.runner.name
  role               = "roles/iam.serviceAccountUser"
  member             = local.members.dispatcher
}

resource "google_storage_bucket_iam_member" "runner" {
  bucket = local.bucket
  role   = google_project_iam_custom_role.this["runner"].id
  member = local.members.runner

  # Objects below the prefix only. To see whether a name exists is a right on the bucket.
  dynamic "condition" {
    for_each = var.storage.prefix == "" ? [] : [var.storage.prefix]

    content {
      title      = "below-the-prefix"
      expression = "resource.type == \"storage.googleapis.com/Bucket\" || resource.name.startsWith(\"projects/_/buckets/${local.bucket}/objects/${condition.value}\")"
    }
  }
}

resource "google_secret_manager_secret_iam_member" "this" {
  for_each  = local.readers
  project   = var.project_id
  secret_id = local.secret_ids[each.value.secret]
  role      = "roles/secretmanager.secretAccessor"
  member    = local.members[each.value.member]
}

resource "google_secret_manager_secret_iam_member" "redis_ca" {
  for_each  = local.redis_ca ? local.members : {}
  project   = var.project_id
  secret_id = google_secret_manager_secret.redis_ca[0].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = each.value
}
