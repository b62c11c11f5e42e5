# Every runner is a resource of its own with our tags, so Azure's bill is exact to the recording.
resource "azurerm_consumption_budget_subscription" "this" {
  count           = var.budget.monthly_usd > 0 ? 1 : 0
  name            = local.global
  subscription_id = "/subscriptions/${var.subscription_id}"
  amount          = var.budget.monthly_usd
  time_grain      = "Monthly"

  time_period {
    start_date = var.budget.start
  }

  filter {
    tag {
      name   = "stack"
      values = [local.prefix]
    }
  }

  dynamic "notification" {
    for_each = [80, 100]

    content {
      operator       = "GreaterThanOrEqualTo"
      threshold      = notification.value
      threshold_type = "Actual"
      contact_emails = var.budget.emails
    }
  }
}
