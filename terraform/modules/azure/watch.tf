resource "azurerm_log_analytics_workspace" "this" {
  name                = local.prefix
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  sku                 = "PerGB2018"
  retention_in_days   = var.log_retention_days
  tags                = local.tags
}

resource "azurerm_monitor_action_group" "this" {
  count               = length(var.alarms.emails) > 0 ? 1 : 0
  name                = local.prefix
  resource_group_name = azurerm_resource_group.this.name
  short_name          = "spillway"
  tags                = local.tags

  dynamic "email_receiver" {
    for_each = var.alarms.emails

    content {
      name          = email_receiver.value
      email_address = email_receiver.value
    }
  }
}

resource "azurerm_monitor_metric_alert" "dispatchers" {
  count               = var.alarms.enabled ? 1 : 0
  name                = "${local.prefix}-dispatchers-missing"
  resource_group_name = azurerm_resource_group.this.name
  description         = "Fewer dispatchers than ordered"
  scopes              = [azurerm_container_app.dispatcher.id]
  severity            = 1
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = local.tags

  criteria {
    metric_namespace = "Microsoft.App/containerApps"
    metric_name      = "Replicas"
    aggregation      = "Maximum"
    operator         = "LessThan"
    threshold        = var.dispatcher.count
  }

  dynamic "action" {
    for_each = azurerm_monitor_action_group.this

    content {
      action_group_id = action.value.id
    }
  }
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "errors" {
  count                = var.alarms.enabled ? 1 : 0
  name                 = "${local.prefix}-dispatcher-errors"
  resource_group_name  = azurerm_resource_group.this.name
  location             = var.location
  description          = "Dispatchers log errors: launches fail, or Redis is away"
  scopes               = [azurerm_log_analytics_workspace.this.id]
  severity             = 2
  evaluation_frequency = "PT5M"
  window_duration      = "PT5M"
  # The table comes with the first line that is logged.
  skip_query_validation = true
  tags                  = local.tags

  criteria {
    query                   = "ContainerAppConsoleLogs_CL | where ContainerAppName_s == '${azurerm_container_app.dispatcher.name}' and Log_s contains '\"level\":\"ERROR\"'"
    time_aggregation_method = "Count"
    operator                = "GreaterThanOrEqual"
    threshold               = 5
  }

  dynamic "action" {
    for_each = length(var.alarms.emails) > 0 ? [azurerm_monitor_action_group.this[0].id] : []

    content {
      action_groups = [action.value]
    }
  }
}

# The dispatchers' own figures: a line a minute with the message "metrics".
resource "azurerm_monitor_scheduled_query_rules_alert_v2" "figures" {
  count                 = var.alarms.enabled ? 1 : 0
  name                  = "${local.prefix}-dispatcher-figures"
  resource_group_name   = azurerm_resource_group.this.name
  location              = var.location
  description           = "Launches fail, requests are refused or find no place, or tasks without an egress were ended"
  scopes                = [azurerm_log_analytics_workspace.this.id]
  severity              = 2
  evaluation_frequency  = "PT5M"
  window_duration       = "PT5M"
  skip_query_validation = true
  tags                  = local.tags

  criteria {
    query = join(" ", [
      "ContainerAppConsoleLogs_CL | where ContainerAppName_s == '${azurerm_container_app.dispatcher.name}'",
      "| extend line = parse_json(Log_s) | where tostring(line.message) == 'metrics'",
      "| where todouble(line.launches_failed) >= 5 or todouble(line.given_up) >= 1 or todouble(line.refused) >= 5 or todouble(line.orphans) >= 1",
    ])
    time_aggregation_method = "Count"
    operator                = "GreaterThanOrEqual"
    threshold               = 1
  }

  dynamic "action" {
    for_each = length(var.alarms.emails) > 0 ? [azurerm_monitor_action_group.this[0].id] : []

    content {
      action_groups = [action.value]
    }
  }
}

locals {
  graphs = [
    { title = "dispatchers", resource = azurerm_container_app.dispatcher.id, namespace = "microsoft.app/containerapps", metric = "Replicas", aggregation = 3 },
    { title = "dispatcher memory", resource = azurerm_container_app.dispatcher.id, namespace = "microsoft.app/containerapps", metric = "WorkingSetBytes", aggregation = 3 },
    { title = "restarts of dispatchers", resource = azurerm_container_app.dispatcher.id, namespace = "microsoft.app/containerapps", metric = "RestartCount", aggregation = 3 },
  ]
}

resource "azurerm_portal_dashboard" "this" {
  count               = var.dashboard ? 1 : 0
  name                = local.prefix
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  tags                = merge(local.tags, { hidden-title = "Spillway ${local.prefix}" })
  dashboard_properties = jsonencode({
    lenses = { "0" = {
      order = 0
      parts = { for index, graph in local.graphs : tostring(index) => {
        position = { x = 6 * index, y = 0, colSpan = 6, rowSpan = 4 }
        metadata = {
          type = "Extension/HubsExtension/PartType/MonitorChartPart"
          inputs = [{
            name = "options"
            value = { chart = {
              title = graph.title
              metrics = [{
                resourceMetadata = { id = graph.resource }
                name             = graph.metric
                namespace        = graph.namespace
                aggregationType  = graph.aggregation
              }]
              timespan = { relative = { duration = 86400000 } }
            } }
          }]
        }
      } }
    } }
    metadata = { model = {} }
  })
}
