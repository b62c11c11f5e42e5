output "dispatcher_env" {
  description = "Everything the dispatcher finds in its environment: plain values, and where secrets come from as `secret:` with an ARN."
  value       = merge(module.common.environment, { for name, arn in local.dispatcher_secrets : name => "secret:${arn}" })
}

output "runner_env" {
  description = "The same for runners, beside what each launch adds."
  value       = merge(local.runner_environment, { for name, arn in local.runner_secrets : name => "secret:${arn}" })
}

output "dispatcher_config" {
  description = "The dispatcher's configuration, without secrets."
  value       = module.common.config
}

output "cluster" {
  description = "ARN of the ECS cluster in which runners are."
  value       = aws_ecs_cluster.runners.arn
}

output "network" {
  description = "What livekit-server's network is peered with, and what its Redis lets in: VPC, range, subnets, route table of each, security groups."
  value = {
    vpc_id          = local.vpc_id
    cidr            = var.network.create ? var.network.cidr : null
    subnets         = { dispatcher = local.subnets, runner = local.runner_subnets, settle = local.settle_subnets }
    route_tables    = { public = one(aws_route_table.public[*].id), private = one(aws_vpc.this[*].main_route_table_id) }
    security_groups = { for part, group in merge({ dispatcher = aws_security_group.dispatcher.id, runner = aws_security_group.runner.id }, local.redis_clients, { redis = one(aws_security_group.redis[*].id) }) : part => group if group != null }
  }
}

output "key_policy" {
  description = "Statements that the policy of `kms_key_arn` must have, as JSON."
  value = templatefile("${path.module}/policies/key.json.tftpl", {
    region  = local.region
    account = local.account
    log_group_arns = jsonencode([
      for name in ["/${local.prefix}/*", "/aws/lambda/${local.prefix}-settle"] : "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${name}"
    ])
  })
}

output "runner_task_definition" {
  description = "Family of the runners' task definition."
  value       = aws_ecs_task_definition.runner.family
}

output "page_task_definition" {
  description = "Family of the task definition for web pages; null: they are refused."
  value       = one(aws_ecs_task_definition.page[*].family)
}

output "runner_identity" {
  description = "ARN of the role that runners have."
  value       = aws_iam_role.runner.arn
}

output "bucket" {
  description = "Bucket of the recordings."
  value       = local.bucket
}

output "redis_endpoint" {
  description = "host:port of Redis: give it to livekit-server too."
  value       = local.redis_address
}

output "secrets" {
  description = "Secrets by short name: their ARNs."
  value       = local.secret_arns
}

output "repository" {
  description = "Where images go when none are named; tags dispatcher, runner, page and settle."
  value       = one(aws_ecr_repository.this[*].repository_url)
}

output "log_groups" {
  description = "Log groups by part."
  value = merge(
    { dispatcher = aws_cloudwatch_log_group.dispatcher.name, runner = aws_cloudwatch_log_group.runner.name },
    local.has_settle ? { settle = aws_cloudwatch_log_group.settle[0].name } : {},
  )
}

output "log_urls" {
  description = "The same in the console."
  value = {
    for part, group in { dispatcher = aws_cloudwatch_log_group.dispatcher.name, runner = aws_cloudwatch_log_group.runner.name } :
    part => "https://${local.region}.console.aws.amazon.com/cloudwatch/home?region=${local.region}#logsV2:log-groups/log-group/${replace(group, "/", "$252F")}"
  }
}

output "dashboard_url" {
  description = "The dashboard in the console."
  value       = var.dashboard ? "https://${local.region}.console.aws.amazon.com/cloudwatch/home?region=${local.region}#dashboards/dashboard/${local.global}" : null
}

output "cost_tags" {
  description = "Tags by which the vendor's own bill can be split."
  value       = local.cost_tags
}

output "policies" {
  description = "Rendered IAM policies by part, as JSON."
  value       = local.policies
}
