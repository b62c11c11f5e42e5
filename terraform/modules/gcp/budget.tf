resource "google_billing_budget" "this" {
  count           = var.budget.monthly_usd > 0 ? 1 : 0
  billing_account = var.budget.billing_account
  display_name    = local.prefix

  budget_filter {
    projects = ["projects/${data.google_project.this.number}"]
    labels   = { stack = local.labels["stack"] }
  }

  amount {
    specified_amount {
      currency_code = "USD"
      units         = tostring(floor(var.budget.monthly_usd))
    }
  }

  dynamic "threshold_rules" {
    for_each = [0.8, 1]

    content {
      threshold_percent = threshold_rules.value
    }
  }

  all_updates_rule {
    monitoring_notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  }
}
