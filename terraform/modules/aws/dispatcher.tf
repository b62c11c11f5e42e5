resource "aws_ecs_task_definition" "dispatcher" {
  family                   = "${local.prefix}-dispatcher"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.dispatcher.cpu)
  memory                   = tostring(var.dispatcher.memory)
  task_role_arn            = aws_iam_role.dispatcher.arn
  execution_role_arn       = aws_iam_role.dispatcher_execution.arn
  tags                     = local.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name                   = "dispatcher"
    image                  = local.dispatcher_image
    essential              = true
    readonlyRootFilesystem = true
    user                   = "10001:10001"
    # It finishes the launches in hand; recordings go on without it.
    stopTimeout = 60
    # No init: it would keep the secrets in its environment, and a dispatcher here starts no program that leaves children.
    linuxParameters = { initProcessEnabled = false, capabilities = { drop = ["ALL"] } }
    environment     = [for name, value in module.common.environment : { name = name, value = value }]
    secrets         = [for name, arn in local.dispatcher_secrets : { name = name, valueFrom = arn }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        "awslogs-group"         = aws_cloudwatch_log_group.dispatcher.name
        "awslogs-region"        = local.region
        "awslogs-stream-prefix" = "dispatcher"
        mode                    = "non-blocking"
      }
    }
  }])
}

# All of them listen; any may die. Two zones, and a new version that does not start is rolled back.
resource "aws_ecs_service" "dispatcher" {
  name                               = "dispatcher"
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.dispatcher.arn
  desired_count                      = var.dispatcher.count
  launch_type                        = "FARGATE"
  deployment_minimum_healthy_percent = 50
  deployment_maximum_percent         = 200
  enable_ecs_managed_tags            = true
  propagate_tags                     = "SERVICE"
  tags                               = local.tags

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.subnets
    security_groups  = [aws_security_group.dispatcher.id]
    assign_public_ip = var.network.public_ip
  }
}
