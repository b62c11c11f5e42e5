# When no dispatcher lives: a task that stopped is settled by the same code in a Lambda. The patterns are JSON in events/:
# rendered here, held against events by tests.

resource "aws_cloudwatch_event_rule" "stopped" {
  count       = local.has_settle ? 1 : 0
  name        = "${local.prefix}-runner-stopped"
  description = "A runner's task has stopped"
  tags        = local.tags
  event_pattern = templatefile("${path.module}/events/stopped.json.tftpl", {
    cluster_arn    = aws_ecs_cluster.runners.arn
    definition_arn = local.runner_definition_arn
  })
}

# Two minutes before Spot takes the machine.
resource "aws_cloudwatch_event_rule" "reclaimed" {
  count       = local.has_settle ? 1 : 0
  name        = "${local.prefix}-runner-reclaimed"
  description = "Spot capacity of a runner will be reclaimed"
  tags        = local.tags
  event_pattern = templatefile("${path.module}/events/reclaimed.json.tftpl", {
    cluster_arn    = aws_ecs_cluster.runners.arn
    definition_arn = local.runner_definition_arn
  })
}

locals {
  rules = local.has_settle ? { stopped = aws_cloudwatch_event_rule.stopped[0], reclaimed = aws_cloudwatch_event_rule.reclaimed[0] } : {}
}

resource "aws_cloudwatch_event_target" "settle" {
  for_each = local.rules
  rule     = each.value.name
  arn      = aws_lambda_function.settle[0].arn

  retry_policy {
    maximum_event_age_in_seconds = 3600
    maximum_retry_attempts       = 20
  }

  dead_letter_config {
    arn = aws_sqs_queue.settle[0].arn
  }
}

resource "aws_lambda_permission" "settle" {
  for_each      = local.rules
  statement_id  = each.key
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.settle[0].function_name
  principal     = "events.amazonaws.com"
  source_arn    = each.value.arn
}

resource "aws_lambda_function" "settle" {
  count                          = local.has_settle ? 1 : 0
  function_name                  = "${local.prefix}-settle"
  description                    = "Settles recordings whose task died"
  role                           = aws_iam_role.settle[0].arn
  package_type                   = "Image"
  image_uri                      = local.images["settle"]
  architectures                  = [var.architecture == "ARM64" ? "arm64" : "x86_64"]
  memory_size                    = 256
  timeout                        = 60
  reserved_concurrent_executions = var.settle_concurrency
  kms_key_arn                    = var.kms_key_arn
  tags                           = local.tags

  vpc_config {
    subnet_ids         = local.settle_subnets
    security_group_ids = [aws_security_group.settle[0].id]
  }

  # Lambda has no references to secrets: their ARNs, which it reads itself.
  environment {
    variables = merge(module.common.environment, { SPILLWAY_SECRETS = jsonencode(local.dispatcher_secrets) })
  }

  dead_letter_config {
    target_arn = aws_sqs_queue.settle[0].arn
  }

  depends_on = [aws_cloudwatch_log_group.settle, aws_iam_role_policy.settle]
}

resource "aws_sqs_queue" "settle" {
  count                             = local.has_settle ? 1 : 0
  name                              = "${local.prefix}-settle-failed"
  message_retention_seconds         = 1209600
  sqs_managed_sse_enabled           = var.kms_key_arn == null ? true : null
  kms_master_key_id                 = var.kms_key_arn
  kms_data_key_reuse_period_seconds = var.kms_key_arn == null ? null : 300
  tags                              = local.tags
}

resource "aws_sqs_queue_policy" "settle" {
  count     = local.has_settle ? 1 : 0
  queue_url = aws_sqs_queue.settle[0].url
  policy = templatefile("${path.module}/policies/queue.json.tftpl", {
    queue_arn = aws_sqs_queue.settle[0].arn
    rule_arns = jsonencode([for rule in local.rules : rule.arn])
  })
}
