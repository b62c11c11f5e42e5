locals {
  cost_tags = ["stack", "tenant", "room", "type", "egress_id"]
}

# Counts what carries our stack tag in this region, from the day after the tag was activated in the account that pays
# (`activate_cost_tags`); before, it stays at 0 and says nothing.
resource "aws_budgets_budget" "this" {
  count        = var.budget.monthly_usd > 0 ? 1 : 0
  name         = local.global
  budget_type  = "COST"
  limit_amount = tostring(var.budget.monthly_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"
  tags         = local.tags

  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:stack$%s", local.prefix)]
  }
  cost_filter {
    name   = "Region"
    values = [local.region]
  }

  dynamic "notification" {
    for_each = [80, 100]

    content {
      comparison_operator        = "GREATER_THAN"
      notification_type          = "ACTUAL"
      threshold                  = notification.value
      threshold_type             = "PERCENTAGE"
      subscriber_email_addresses = var.budget.emails
    }
  }
}

resource "aws_ce_cost_allocation_tag" "this" {
  for_each = var.activate_cost_tags ? toset(local.cost_tags) : toset([])
  tag_key  = each.key
  status   = "Active"
}
