# One installation in one region: dispatchers on Fargate, runners as single tasks, Redis, a bucket, and what watches them.
# network -> redis, storage, secrets -> iam -> cluster, dispatcher, runner -> events, settle -> watch, budget.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.region
  prefix    = module.common.prefix
  # IAM roles, the dashboard and the budget have one list for all regions of an account.
  global = module.common.global
  tags   = module.common.tags

  has_settle = var.images.settle != null
  # An image of ours is the tag of its name, or one digest of it.
  images = {
    for part, own in local.own_images : part => (
      !own ? var.images[part] :
      var.images[part] == null ? "${aws_ecr_repository.this[0].repository_url}:${part}" : "${aws_ecr_repository.this[0].repository_url}@${var.images[part]}"
    )
  }

  # What the dispatcher's configuration calls a target: a cluster, the definition to run there, and where.
  targets = [
    for capacity in var.runner.capacity : {
      name     = "aws/${local.region}/${capacity}"
      launcher = "ecs"
      capacity = capacity
      region   = local.region
      arch     = lower(var.architecture)
      nat      = !var.network.public_ip
      options = merge(
        {
          region           = local.region
          cluster          = aws_ecs_cluster.runners.arn
          task_definition  = aws_ecs_task_definition.runner.family
          container        = "runner"
          subnets          = local.runner_subnets
          security_groups  = [aws_security_group.runner.id]
          assign_public_ip = var.network.public_ip
          stop_seconds     = var.runner.stop_seconds
          # For links to the log of a task.
          log_group = aws_cloudwatch_log_group.runner.name
        },
        # Without it the dispatcher refuses web pages here.
        local.has_page ? { page_task_definition = aws_ecs_task_definition.page[0].family } : {},
      )
    }
  ]
}

module "common" {
  source = "../common"

  name        = var.name
  environment = var.environment
  place       = data.aws_region.this.region
  unique      = data.aws_caller_identity.this.account_id
  tags        = var.tags
  livekit_url = var.livekit_url
  limits      = var.limits
  log_level   = var.log_level
  settings    = var.settings
  targets     = local.targets

  redis = {
    address  = local.redis_address
    db       = var.redis.db
    username = var.redis.username
    tls      = var.redis.tls
  }
  storage = {
    prefix = var.storage.prefix == "" ? null : var.storage.prefix
    s3     = { bucket = local.bucket, region = local.region }
  }
}
