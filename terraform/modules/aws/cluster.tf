# Two clusters, which cost nothing: a dispatcher may stop every task of the runners' and none of its siblings.
resource "aws_ecs_cluster" "this" {
  name = local.prefix
  tags = local.tags

  setting {
    name  = "containerInsights"
    value = var.container_insights ? "enabled" : "disabled"
  }
}

resource "aws_ecs_cluster" "runners" {
  name = "${local.prefix}-runners"
  tags = local.tags

  setting {
    name  = "containerInsights"
    value = var.container_insights ? "enabled" : "disabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.runners.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

# One definition serves every size: cpu, memory and disk are overrides of each launch.
resource "aws_ecs_task_definition" "runner" {
  family                   = "${local.prefix}-runner"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.runner.cpu)
  memory                   = tostring(var.runner.memory)
  task_role_arn            = aws_iam_role.runner.arn
  execution_role_arn       = aws_iam_role.runner_execution.arn
  tags                     = local.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  # The root is read-only; the spool lies here, on the task's own disk.
  volume {
    name = "spool"
  }

  container_definitions = jsonencode([merge(local.runner_container, { image = local.images["runner"] })])

  # A launch between the two would find none.
  lifecycle {
    create_before_destroy = true
  }
}

# The same with a browser in its image, for web pages.
resource "aws_ecs_task_definition" "page" {
  count                    = local.has_page ? 1 : 0
  family                   = "${local.prefix}-runner-page"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(module.common.sizes.fargate_page.cpu)
  memory                   = tostring(module.common.sizes.fargate_page.memory)
  task_role_arn            = aws_iam_role.runner.arn
  execution_role_arn       = aws_iam_role.runner_execution.arn
  tags                     = local.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "spool"
  }

  container_definitions = jsonencode([merge(local.runner_container, { image = local.images["page"] })])

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  # Names only: where Redis is. What to record comes with the launch.
  runner_environment = {
    SPILLWAY_LOG_FORMAT = "json"
    SPILLWAY_REDIS      = jsonencode(module.common.redis)
  }

  # All but the image.
  runner_container = {
    name                   = "runner"
    essential              = true
    readonlyRootFilesystem = true
    user                   = "10001:10001"
    stopTimeout            = var.runner.stop_seconds
    # No init: as the first process it would keep the secrets in an environment that the media process could read.
    # `add = []`: ECS stores both lists, and a list that is absent here would be a new definition on every apply.
    linuxParameters = { initProcessEnabled = false, capabilities = { add = [], drop = ["ALL"] } }
    mountPoints     = [{ sourceVolume = "spool", containerPath = "/tmp", readOnly = false }]
    environment     = [for name, value in local.runner_environment : { name = name, value = value }]
    secrets         = [for name, arn in local.runner_secrets : { name = name, valueFrom = arn }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        "awslogs-group"         = aws_cloudwatch_log_group.runner.name
        "awslogs-region"        = local.region
        "awslogs-stream-prefix" = "runner"
        mode                    = "non-blocking"
      }
    }
  }
}
