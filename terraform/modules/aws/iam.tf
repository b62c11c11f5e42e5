# Policies are JSON in policies/: rendered here, read there by tests.

locals {
  trust = {
    for who, trust in {
      # Only for tasks of this account, as AWS advises for roles of tasks.
      task = { service = "ecs-tasks.amazonaws.com", condition = { StringEquals = { "aws:SourceAccount" = local.account } } }
      # AWS names a source in its guide for roles of tasks only; with a condition that is not met no task would start.
      execution = { service = "ecs-tasks.amazonaws.com", condition = {} }
      lambda    = { service = "lambda.amazonaws.com", condition = {} }
    } : who => templatefile("${path.module}/policies/trust.json.tftpl", { service = trust.service, condition = jsonencode(trust.condition) })
  }

  # By names, not by the resources, which need the roles first. Policies and events add `-page` to the definition's.
  runner_definition_arn = "arn:${local.partition}:ecs:${local.region}:${local.account}:task-definition/${local.prefix}-runner"
  task_arn              = "arn:${local.partition}:ecs:${local.region}:${local.account}:task/${local.prefix}-runners/*"

  # Each part pulls its own image's repository: ours, or the one of ECR that its name says (ACCOUNT.dkr.ecr.REGION.…/NAME:TAG). An
  # image from elsewhere is pulled without a right.
  named_images = { for part, own in local.own_images : part => var.images[part] if !own }
  ecr_images   = { for part, image in local.named_images : part => try(regex("^([0-9]{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.[a-z.]+/([^:@]+)", image), null) }
  repository_arns = {
    for part in setintersection(local.parts, ["dispatcher", "runner", "page"]) : part => (
      !contains(keys(local.named_images), part) ? aws_ecr_repository.this[0].arn :
      local.ecr_images[part] == null ? "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${local.prefix}" :
      "arn:${local.partition}:ecr:${local.ecr_images[part][1]}:${local.ecr_images[part][0]}:repository/${local.ecr_images[part][2]}"
    )
  }

  policies = merge({
    dispatcher = templatefile("${path.module}/policies/dispatcher.json.tftpl", {
      cluster_arn               = aws_ecs_cluster.runners.arn
      task_arn                  = local.task_arn
      runner_definition_arn     = local.runner_definition_arn
      runner_role_arn           = aws_iam_role.runner.arn
      runner_execution_role_arn = aws_iam_role.runner_execution.arn
    })
    dispatcher_execution = templatefile("${path.module}/policies/execution.json.tftpl", {
      repository_arns = jsonencode([local.repository_arns["dispatcher"]])
      log_group_arn   = aws_cloudwatch_log_group.dispatcher.arn
      secret_arns     = jsonencode(values(local.dispatcher_secrets))
    })
    runner = templatefile("${path.module}/policies/runner.json.tftpl", {
      bucket_arn = local.bucket_arn
      key_prefix = var.storage.prefix
    })
    runner_execution = templatefile("${path.module}/policies/execution.json.tftpl", {
      repository_arns = jsonencode(distinct([for part in local.parts : local.repository_arns[part] if contains(["runner", "page"], part)]))
      log_group_arn   = aws_cloudwatch_log_group.runner.arn
      secret_arns     = jsonencode(values(local.runner_secrets))
    })
    }, local.has_settle ? {
    settle = templatefile("${path.module}/policies/settle.json.tftpl", {
      log_group_arn = aws_cloudwatch_log_group.settle[0].arn
      secret_arns   = jsonencode(values(local.dispatcher_secrets))
      queue_arn     = aws_sqs_queue.settle[0].arn
    })
  } : {})
}

resource "aws_iam_role" "dispatcher" {
  name                 = "${local.global}-dispatcher"
  description          = "Spillway dispatchers: launch, watch and stop runners"
  assume_role_policy   = local.trust["task"]
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "dispatcher" {
  name   = "dispatcher"
  role   = aws_iam_role.dispatcher.id
  policy = local.policies.dispatcher
}

resource "aws_iam_role" "dispatcher_execution" {
  name                 = "${local.global}-dispatcher-execution"
  description          = "Starts dispatchers: image, log, secrets"
  assume_role_policy   = local.trust["execution"]
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "dispatcher_execution" {
  name   = "execution"
  role   = aws_iam_role.dispatcher_execution.id
  policy = local.policies.dispatcher_execution
}

resource "aws_iam_role" "runner" {
  name                 = "${local.global}-runner"
  description          = "Spillway runners: one bucket"
  assume_role_policy   = local.trust["task"]
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "runner" {
  name   = "runner"
  role   = aws_iam_role.runner.id
  policy = local.policies.runner
}

resource "aws_iam_role_policy" "runner_key" {
  count  = var.storage.kms_key_arn == null ? 0 : 1
  name   = "bucket-key"
  role   = aws_iam_role.runner.id
  policy = templatefile("${path.module}/policies/bucket-key.json.tftpl", { key_arn = var.storage.kms_key_arn })
}

resource "aws_iam_role" "runner_execution" {
  name                 = "${local.global}-runner-execution"
  description          = "Starts runners: image, log, secrets"
  assume_role_policy   = local.trust["execution"]
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "runner_execution" {
  name   = "execution"
  role   = aws_iam_role.runner_execution.id
  policy = local.policies.runner_execution
}

resource "aws_iam_role_policy" "secrets_key" {
  for_each = var.kms_key_arn == null ? {} : merge(
    { dispatcher = aws_iam_role.dispatcher_execution.id, runner = aws_iam_role.runner_execution.id },
    local.has_settle ? { settle = aws_iam_role.settle[0].id } : {},
  )
  name   = "secrets-key"
  role   = each.value
  policy = templatefile("${path.module}/policies/secrets-key.json.tftpl", { key_arn = var.kms_key_arn })
}

resource "aws_iam_role" "settle" {
  count                = local.has_settle ? 1 : 0
  name                 = "${local.global}-settle"
  description          = "Settles recordings whose task died, and launches their salvage"
  assume_role_policy   = local.trust["lambda"]
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role_policy" "settle" {
  for_each = local.has_settle ? toset(["settle", "dispatcher"]) : toset([])
  name     = each.key
  role     = aws_iam_role.settle[0].id
  policy   = local.policies[each.key]
}
