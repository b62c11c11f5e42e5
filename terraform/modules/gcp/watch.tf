locals {
  log_filters = {
    dispatcher = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.prefix}-dispatcher\" AND resource.labels.location=\"${var.region}\""
    runner     = "resource.type=\"cloud_run_job\" AND resource.labels.job_name=~\"^${local.prefix}-runner-\" AND resource.labels.location=\"${var.region}\""
  }
}

resource "google_monitoring_notification_channel" "email" {
  for_each     = var.alarms.emails
  project      = var.project_id
  display_name = "Spillway ${local.prefix}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  user_labels  = local.labels

  depends_on = [time_sleep.apis]
}

resource "google_logging_metric" "errors" {
  for_each    = local.log_filters
  project     = var.project_id
  name        = "${local.global}-${each.key}-errors"
  description = "Errors that ${each.key}s log"
  filter      = "${each.value} AND (severity>=ERROR OR jsonPayload.level=\"ERROR\")"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [time_sleep.apis]
}

# The dispatchers' own figures: a line a minute with the message "metrics". Those of several dispatchers add up.
resource "google_logging_metric" "figures" {
  for_each        = toset(["queue_length", "running", "launched", "launches_failed", "refused", "given_up", "failed", "orphans", "dollars"])
  project         = var.project_id
  name            = "${local.global}-${each.key}"
  description     = "Of the dispatchers' log: ${each.key}"
  filter          = "${local.log_filters.dispatcher} AND jsonPayload.message=\"metrics\""
  value_extractor = "EXTRACT(jsonPayload.${each.key})"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
  }

  depends_on = [time_sleep.apis]
}

# On the log itself, as `errors`.
resource "google_monitoring_alert_policy" "figures" {
  count                 = var.alarms.enabled ? 1 : 0
  project               = var.project_id
  display_name          = "${local.prefix}: launches fail, or requests find no place"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  user_labels           = local.labels

  conditions {
    display_name = "in a minute"

    condition_matched_log {
      filter = "${local.log_filters.dispatcher} AND jsonPayload.message=\"metrics\" AND (jsonPayload.launches_failed>=5 OR jsonPayload.given_up>=1 OR jsonPayload.refused>=5 OR jsonPayload.orphans>=1)"
    }
  }

  alert_strategy {
    auto_close = "1800s"

    notification_rate_limit {
      period = "300s"
    }
  }

  depends_on = [time_sleep.apis]
}

resource "google_monitoring_alert_policy" "errors" {
  count                 = var.alarms.enabled ? 1 : 0
  project               = var.project_id
  display_name          = "${local.prefix}: dispatchers log errors"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  user_labels           = local.labels

  # The log itself: a policy on a metric of the log is refused until the metric is ten minutes old.
  conditions {
    display_name = "an error"

    condition_matched_log {
      filter = "${local.log_filters.dispatcher} AND (severity>=ERROR OR jsonPayload.level=\"ERROR\")"
    }
  }

  alert_strategy {
    auto_close = "1800s"

    notification_rate_limit {
      period = "300s"
    }
  }

  depends_on = [time_sleep.apis]
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
      filter                  = "metric.type=\"run.googleapis.com/container/instance_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.prefix}-dispatcher\" AND resource.labels.location=\"${var.region}\""
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

  depends_on = [time_sleep.apis]
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
      filter          = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${local.global}-undelivered\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  depends_on = [time_sleep.apis]
}

locals {
  graphs = [
    { title = "dispatchers", filter = "metric.type=\"run.googleapis.com/container/instance_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.prefix}-dispatcher\" AND resource.labels.location=\"${var.region}\"", aligner = "ALIGN_MAX" },
    { title = "running executions", filter = "metric.type=\"run.googleapis.com/job/running_executions\" AND resource.type=\"cloud_run_job\" AND resource.labels.job_name=monitoring.regex.full_match(\"${local.prefix}-runner-.*\") AND resource.labels.location=\"${var.region}\"", aligner = "ALIGN_MAX" },
    { title = "ended executions", filter = "metric.type=\"run.googleapis.com/job/completed_execution_count\" AND resource.type=\"cloud_run_job\" AND resource.labels.job_name=monitoring.regex.full_match(\"${local.prefix}-runner-.*\") AND resource.labels.location=\"${var.region}\"", aligner = "ALIGN_SUM" },
    { title = "errors in the dispatchers' log", filter = "metric.type=\"logging.googleapis.com/user/${local.global}-dispatcher-errors\"", aligner = "ALIGN_SUM" },
  ]
}

resource "google_monitoring_dashboard" "this" {
  count   = var.dashboard ? 1 : 0
  project = var.project_id
  dashboard_json = jsonencode({
    displayName = "Spillway ${local.prefix}"
    mosaicLayout = {
      columns = 12
      # Without a zero: the API leaves it out, and it would be a change on every plan.
      tiles = [for index, graph in local.graphs : merge({ for at, value in { xPos = 6 * (index % 2), yPos = 4 * floor(index / 2) } : at => value if value > 0 }, {
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
      })]
    }
  })

  depends_on = [time_sleep.apis]
}
