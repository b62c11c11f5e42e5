resource "google_billing_budget" "this" {
  count           = var.budget.monthly > 0 ? 1 : 0
  billing_account = var.budget.billing_account
  display_name    = local.global

  budget_filter {
    projects = ["projects/${local.project_number}"]
    labels   = { stack = local.labels["stack"] }
  }

  # In the billing account's own currency, which alone is accepted.
  amount {
    specified_amount {
      units = tostring(floor(var.budget.monthly))
    }
  }

  dynamic "threshold_rules" {
    for_each = [0.8, 1]

    content {
      threshold_percent = threshold_rules.value
    }
  }

  # Without addresses Google writes to the billing account's administrators, and an empty rule is an error.
  dynamic "all_updates_rule" {
    for_each = length(var.alarms.emails) > 0 ? [1] : []

    content {
      monitoring_notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
    }
  }

  depends_on = [time_sleep.apis]
}
