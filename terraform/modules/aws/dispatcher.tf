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
    image                  = local.images["dispatcher"]
    essential              = true
    readonlyRootFilesystem = true
    user                   = "10001:10001"
    # It finishes the launches in hand; recordings go on without it.
    stopTimeout = 60
    # No init: it would keep the secrets in its environment, and a dispatcher here starts no program that leaves children.
    # `add = []`: ECS stores both lists, and a list that is absent here would be a new definition on every apply.
    linuxParameters = { initProcessEnabled = false, capabilities = { add = [], drop = ["ALL"] } }
    # A dispatcher that hangs is replaced, as Cloud Run and container apps do it by their probes.
    healthCheck = {
      command     = ["CMD", "/usr/bin/spillway-dispatcher", "healthy", "--port", "8080"]
      interval    = 30
      timeout     = 5
      retries     = 3
      startPeriod = 60
    }
    environment = [for name, value in module.common.environment : { name = name, value = value }]
    secrets     = [for name, arn in local.dispatcher_secrets : { name = name, valueFrom = arn }]
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

  # A launch between the two would find none.
  lifecycle {
    create_before_destroy = true
  }
}

# All of them listen; any may die. Two zones, and a new version that does not start is rolled back. The first one has nothing to
# be rolled back to: after three tasks that do not start ECS gives up for good. So whatever a task needs is there before.
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

  depends_on = [
    aws_iam_role_policy.dispatcher, aws_iam_role_policy.dispatcher_execution, aws_iam_role_policy.secrets_key,
    aws_route.internet, aws_route_table_association.public, aws_secretsmanager_secret_version.this, aws_vpc_endpoint.s3,
    aws_vpc_endpoint.settle, aws_vpc_security_group_egress_rule.dispatcher_https, aws_vpc_security_group_egress_rule.dispatcher_redis,
    aws_vpc_security_group_ingress_rule.endpoint, aws_vpc_security_group_ingress_rule.redis,
  ]
}
