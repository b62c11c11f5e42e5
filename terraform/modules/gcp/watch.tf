locals {
  log_filters = {
    dispatcher = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.prefix}-dispatcher\""
    runner     = "resource.type=\"cloud_run_job\" AND resource.labels.job_name=~\"^${local.prefix}-runner-\""
  }
}

resource "google_monitoring_notification_channel" "email" {
  for_each     = var.alarms.emails
  project      = var.project_id
  display_name = "Spillway ${local.prefix}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  user_labels  = local.labels

  depends_on = [google_project_service.this]
}

resource "google_logging_metric" "errors" {
  for_each    = local.log_filters
  project     = var.project_id
  name        = "${local.prefix}-${each.key}-errors"
  description = "Errors that ${each.key}s log"
  filter      = "${each.value} AND (severity>=ERROR OR jsonPayload.level=\"ERROR\")"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "errors" {
  count                 = var.alarms.enabled ? 1 : 0
  project               = var.project_id
  display_name          = "${local.prefix}: dispatchers log errors"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  user_labels           = local.labels

  conditions {
    display_name = "5 errors in 5 minutes"

    condition_threshold {
      filter          = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.errors["dispatcher"].name}\" AND resource.type=\"cloud_run_revision\""
      comparison      = "COMPARISON_GT"
      threshold_value = 4
      duration        = "0s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "dispatchers" {
  count                 = var.alarms.enabled ? 1 : 0
  project               = var.project_id
  display_name          = "${local.prefix}: fewer dispatchers than ordered"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  user_labels           = local.labels

  conditions {
    display_name = "for 5 minutes"

    condition_threshold {
      filter                  = "metric.type=\"run.googleapis.com/container/instance_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.prefix}-dispatcher\""
      comparison              = "COMPARISON_LT"
      threshold_value         = var.dispatcher.count
      duration                = "300s"
      evaluation_missing_data = "EVALUATION_MISSING_DATA_ACTIVE"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "undelivered" {
  count                 = var.alarms.enabled && var.events ? 1 : 0
  project               = var.project_id
  display_name          = "${local.prefix}: ended executions whose delivery failed"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  user_labels           = local.labels

  conditions {
    display_name = "any"

    condition_threshold {
      filter          = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${local.prefix}-undelivered\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
}

locals {
  graphs = [
    { title = "dispatchers", filter = "metric.type=\"run.googleapis.com/container/instance_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.prefix}-dispatcher\"", aligner = "ALIGN_MAX" },
    { title = "running executions", filter = "metric.type=\"run.googleapis.com/job/running_executions\" AND resource.type=\"cloud_run_job\" AND resource.labels.job_name=monitoring.regex.full_match(\"${local.prefix}-runner-.*\")", aligner = "ALIGN_MAX" },
    { title = "ended executions", filter = "metric.type=\"run.googleapis.com/job/completed_execution_count\" AND resource.type=\"cloud_run_job\" AND resource.labels.job_name=monitoring.regex.full_match(\"${local.prefix}-runner-.*\")", aligner = "ALIGN_SUM" },
    { title = "errors in the dispatchers' log", filter = "metric.type=\"logging.googleapis.com/user/${local.prefix}-dispatcher-errors\"", aligner = "ALIGN_SUM" },
  ]
}

resource "google_monitoring_dashboard" "this" {
  count   = var.dashboard ? 1 : 0
  project = var.project_id
  dashboard_json = jsonencode({
    displayName = "Spillway ${local.prefix}"
    mosaicLayout = {
      columns = 12
      tiles = [for index, graph in local.graphs : {
        xPos   = 6 * (index % 2)
        yPos   = 4 * floor(index / 2)
        width  = 6
        height = 4
        widget = {
          title = graph.title
          xyChart = { dataSets = [{
            plotType = "LINE"
            timeSeriesQuery = { timeSeriesFilter = {
              filter      = graph.filter
              aggregation = { alignmentPeriod = "60s", perSeriesAligner = graph.aligner, crossSeriesReducer = "REDUCE_SUM" }
            } }
          }] }
        }
      }]
    }
  })

  depends_on = [google_project_service.this]
}
