# What the vendor itself sees, and the dispatcher's own figures from its log: a line a minute with the message "metrics".

locals {
  # Fields of that line. Those of several dispatchers add up.
  figures = ["queue_length", "running", "launched", "launches_failed", "refused", "given_up", "failed", "orphans", "dollars"]
  warnings = {
    launches_failed = { threshold = 5, description = "Launches fail: quota, capacity, image or rights" }
    given_up        = { threshold = 1, description = "Requests found no place in time" }
    refused         = { threshold = 5, description = "Requests are refused: limits, budgets or a full queue" }
    orphans         = { threshold = 1, description = "Tasks without an egress were ended" }
  }
  alarm_actions = var.alarms.topic_arn == null ? [] : [var.alarms.topic_arn]
  metric_space  = "Spillway/${local.prefix}"
}

resource "aws_cloudwatch_log_metric_filter" "errors" {
  for_each       = { dispatcher = aws_cloudwatch_log_group.dispatcher.name, runner = aws_cloudwatch_log_group.runner.name }
  name           = "${local.prefix}-${each.key}-errors"
  log_group_name = each.value
  pattern        = "{ $.level = \"ERROR\" }"

  metric_transformation {
    name          = "${each.key}-errors"
    namespace     = local.metric_space
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_log_metric_filter" "figures" {
  for_each       = toset(local.figures)
  name           = "${local.prefix}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.dispatcher.name
  pattern        = "{ $.message = \"metrics\" }"

  metric_transformation {
    name      = each.key
    namespace = local.metric_space
    value     = "$.${each.key}"
  }
}

resource "aws_cloudwatch_metric_alarm" "figures" {
  for_each            = var.alarms.enabled ? local.warnings : {}
  alarm_name          = "${local.prefix}-${each.key}"
  alarm_description   = each.value.description
  namespace           = local.metric_space
  metric_name         = aws_cloudwatch_log_metric_filter.figures[each.key].metric_transformation[0].name
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = each.value.threshold
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "dispatcher_errors" {
  count               = var.alarms.enabled ? 1 : 0
  alarm_name          = "${local.prefix}-dispatcher-errors"
  alarm_description   = "Dispatchers log errors: launches fail, or Redis is away"
  namespace           = local.metric_space
  metric_name         = "dispatcher-errors"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 5
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = local.tags
}

# ECS reports a sample per task and minute, so their number is the number of tasks.
resource "aws_cloudwatch_metric_alarm" "dispatchers" {
  count               = var.alarms.enabled && var.dispatcher.count > 0 ? 1 : 0
  alarm_name          = "${local.prefix}-dispatchers-missing"
  alarm_description   = "Fewer dispatchers than ordered"
  namespace           = "AWS/ECS"
  metric_name         = "CPUUtilization"
  statistic           = "SampleCount"
  dimensions          = { ClusterName = aws_ecs_cluster.this.name, ServiceName = aws_ecs_service.dispatcher.name }
  period              = 60
  evaluation_periods  = 5
  threshold           = var.dispatcher.count
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "settle_failed" {
  count               = var.alarms.enabled && local.has_settle ? 1 : 0
  alarm_name          = "${local.prefix}-settle-failed"
  alarm_description   = "Events of stopped tasks that could not be handled are in the dead-letter queue"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  statistic           = "Maximum"
  dimensions          = { QueueName = aws_sqs_queue.settle[0].name }
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "redis_memory" {
  count               = var.alarms.enabled && var.redis.create ? 1 : 0
  alarm_name          = "${local.prefix}-redis-memory"
  alarm_description   = "Redis is nearly full; tickets and the queue need room"
  namespace           = "AWS/ElastiCache"
  metric_name         = "DatabaseMemoryUsagePercentage"
  statistic           = "Maximum"
  dimensions          = { CacheClusterId = "${aws_elasticache_replication_group.this[0].replication_group_id}-001" }
  period              = 300
  evaluation_periods  = 2
  threshold           = 80
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = local.tags
}

locals {
  graphs = [
    { title = "dispatchers", metrics = [["AWS/ECS", "CPUUtilization", "ClusterName", local.prefix, "ServiceName", "dispatcher", { stat = "SampleCount" }]] },
    { title = "dispatcher CPU and memory, %", metrics = [
      ["AWS/ECS", "CPUUtilization", "ClusterName", local.prefix, "ServiceName", "dispatcher"],
      ["AWS/ECS", "MemoryUtilization", "ClusterName", local.prefix, "ServiceName", "dispatcher"],
    ] },
    { title = "recordings and launch queue", metrics = [
      [local.metric_space, "running", { stat = "Sum" }],
      [local.metric_space, "queue_length", { stat = "Sum" }],
    ] },
    { title = "launched, failed, refused, given up", metrics = [
      for figure in ["launched", "launches_failed", "refused", "given_up"] : [local.metric_space, figure, { stat = "Sum" }]
    ] },
    { title = "dollars of finished tasks", metrics = [[local.metric_space, "dollars", { stat = "Sum" }]] },
    { title = "errors in the logs", metrics = [
      [local.metric_space, "dispatcher-errors", { stat = "Sum" }],
      [local.metric_space, "runner-errors", { stat = "Sum" }],
    ] },
    { title = "Fargate vCPUs on demand and Spot", metrics = [
      ["AWS/Usage", "ResourceCount", "Type", "Resource", "Resource", "vCPU", "Service", "Fargate", "Class", "Standard/OnDemand"],
      ["AWS/Usage", "ResourceCount", "Type", "Resource", "Resource", "vCPU", "Service", "Fargate", "Class", "Standard/Spot"],
    ] },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  count          = var.dashboard ? 1 : 0
  dashboard_name = local.global
  dashboard_body = jsonencode({
    widgets = [for index, graph in local.graphs : {
      type       = "metric"
      x          = 12 * (index % 2)
      y          = 6 * floor(index / 2)
      width      = 12
      height     = 6
      properties = { title = graph.title, region = local.region, period = 60, metrics = graph.metrics }
    }]
  })
}
