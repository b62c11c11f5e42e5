# The end of an execution is an entry in the log; a sink sends it to a topic, which pushes it to a dispatcher.

locals {
  filter = join(" AND ", [
    "log_id(\"cloudaudit.googleapis.com/system_event\")",
    "resource.type=\"cloud_run_job\"",
    "resource.labels.location=\"${var.region}\"",
    "resource.labels.job_name=~\"^${local.prefix}-runner-\"",
    "protoPayload.methodName=\"/Jobs.RunJob\"",
  ])
  # Google makes this account when Pub/Sub is first used, or when it is asked to (../../README.md).
  pubsub_agent = "serviceAccount:service-${local.project_number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic" "ended" {
  count   = var.events ? 1 : 0
  project = var.project_id
  name    = "${local.global}-ended"
  labels  = local.labels

  depends_on = [time_sleep.apis]
}

resource "google_pubsub_topic" "undelivered" {
  count   = var.events ? 1 : 0
  project = var.project_id
  name    = "${local.global}-undelivered"
  labels  = local.labels

  depends_on = [time_sleep.apis]
}

resource "google_logging_project_sink" "ended" {
  count                  = var.events ? 1 : 0
  project                = var.project_id
  name                   = "${local.global}-ended"
  description            = "Ends of runners' executions"
  destination            = "pubsub.googleapis.com/${google_pubsub_topic.ended[0].id}"
  filter                 = local.filter
  unique_writer_identity = true
}

resource "google_pubsub_topic_iam_member" "sink" {
  count   = var.events ? 1 : 0
  project = var.project_id
  topic   = google_pubsub_topic.ended[0].name
  role    = "roles/pubsub.publisher"
  member  = google_logging_project_sink.ended[0].writer_identity
}

resource "google_service_account" "events" {
  count        = var.events ? 1 : 0
  project      = var.project_id
  account_id   = "${module.common.short}-events"
  display_name = "Spillway ${local.prefix}: pushed events"
  description  = "May call the dispatchers' service, nothing else"

  depends_on = [time_sleep.apis]
}

resource "google_cloud_run_v2_service_iam_member" "events" {
  count    = var.events ? 1 : 0
  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_service.dispatcher.name
  role     = "roles/run.invoker"
  member   = "serviceAccount:${google_service_account.events[0].email}"
}

resource "google_pubsub_subscription" "ended" {
  count                      = var.events ? 1 : 0
  project                    = var.project_id
  name                       = "${local.global}-ended"
  topic                      = google_pubsub_topic.ended[0].id
  ack_deadline_seconds       = 30
  message_retention_duration = "86400s"
  labels                     = local.labels

  push_config {
    push_endpoint = "${google_cloud_run_v2_service.dispatcher.uri}/events/cloudrun"

    oidc_token {
      service_account_email = google_service_account.events[0].email
      audience              = google_cloud_run_v2_service.dispatcher.uri
    }
  }

  retry_policy {
    minimum_backoff = "1s"
    maximum_backoff = "60s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.undelivered[0].id
    max_delivery_attempts = 20
  }

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_subscription" "undelivered" {
  count                      = var.events ? 1 : 0
  project                    = var.project_id
  name                       = "${local.global}-undelivered"
  topic                      = google_pubsub_topic.undelivered[0].id
  message_retention_duration = "604800s"
  labels                     = local.labels

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic_iam_member" "undelivered" {
  count   = var.events ? 1 : 0
  project = var.project_id
  topic   = google_pubsub_topic.undelivered[0].name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "undelivered" {
  count        = var.events ? 1 : 0
  project      = var.project_id
  subscription = google_pubsub_subscription.ended[0].name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}
