# What is made, with which switches. The provider is a mock: ids and ARNs are made up, everything else is ours.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }
  mock_resource "aws_ecs_cluster" {
    defaults = { arn = "arn:aws:ecs:eu-central-1:111122223333:cluster/spillway-prod" }
  }
}

variables {
  livekit_url = "wss://livekit.example.org"
  secrets     = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
}

run "by_default_everything_but_the_lambda" {
  assert {
    condition     = length(aws_vpc.this) == 1 && length(aws_subnet.public) == 2 && aws_subnet.public[0].availability_zone != aws_subnet.public[1].availability_zone
    error_message = "a network with public subnets in two zones"
  }
  assert {
    condition     = aws_subnet.public[0].cidr_block == "10.80.0.0/20" && aws_subnet.private[1].cidr_block == "10.80.255.0/24"
    error_message = "subnets have their places in the network"
  }
  assert {
    condition     = aws_ecs_service.dispatcher.desired_count == 2 && aws_ecs_service.dispatcher.deployment_circuit_breaker[0].rollback
    error_message = "two dispatchers; a version that does not start is rolled back"
  }
  assert {
    condition     = length(aws_lambda_function.settle) == 0 && length(aws_cloudwatch_event_rule.stopped) == 0 && length(aws_vpc_endpoint.settle) == 0 && length(aws_sqs_queue.settle) == 0
    error_message = "without its image no Lambda, and nothing around it"
  }
  assert {
    condition     = aws_elasticache_replication_group.this[0].transit_encryption_enabled && aws_elasticache_replication_group.this[0].automatic_failover_enabled && aws_elasticache_replication_group.this[0].num_cache_clusters == 2
    error_message = "Redis is encrypted on the way and has a replica that takes over"
  }
  assert {
    condition     = length(aws_budgets_budget.this) == 0 && length(aws_ce_cost_allocation_tag.this) == 0 && length(aws_cloudwatch_dashboard.this) == 1
    error_message = "no budget unless asked, a dashboard unless not"
  }
  assert {
    condition     = toset(keys(aws_secretsmanager_secret.this)) == toset(["livekit-api-key", "livekit-api-secret", "ticket-key"]) && length(aws_secretsmanager_secret_version.this) == 3
    error_message = "three secrets with their values, without which no task starts"
  }
}

run "nothing_comes_in" {
  variables {
    images = { settle = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/spillway-prod:settle" }
    redis  = { client_cidrs = ["10.1.0.0/16"] }
  }

  assert {
    condition = alltrue([
      for rule in concat(values(aws_vpc_security_group_ingress_rule.redis), values(aws_vpc_security_group_ingress_rule.redis_cidr), aws_vpc_security_group_ingress_rule.endpoint) :
      !contains([aws_security_group.runner.id, aws_security_group.dispatcher.id, aws_security_group.settle[0].id], rule.security_group_id)
    ])
    error_message = "no ingress rule belongs to runners, dispatchers or the Lambda"
  }
  assert {
    condition     = toset(keys(aws_vpc_security_group_ingress_rule.redis)) == toset(["dispatcher", "runner", "settle"]) && toset(keys(aws_vpc_security_group_ingress_rule.redis_cidr)) == toset(["10.1.0.0/16"])
    error_message = "Redis lets in who needs it and what range was named"
  }
  assert {
    condition     = alltrue([for rule in values(aws_vpc_security_group_ingress_rule.redis) : rule.from_port == 6379 && rule.to_port == 6379 && rule.cidr_ipv4 == null])
    error_message = "only Redis' port, and no range of addresses"
  }
  assert {
    condition     = length(aws_default_security_group.this) == 1 && length(aws_default_security_group.this[0].ingress) == 0
    error_message = "the network's default group has no rule"
  }
}

run "a_runner_is_a_task_that_can_only_write_its_spool" {
  variables {
    runner = { cpu = 2048, memory = 5120, stop_seconds = 90 }
  }

  assert {
    condition     = aws_ecs_task_definition.runner.cpu == "2048" && aws_ecs_task_definition.runner.memory == "5120"
    error_message = "size as asked"
  }
  assert {
    condition = alltrue([
      for container in jsondecode(aws_ecs_task_definition.runner.container_definitions) :
      container.readonlyRootFilesystem && container.user == "10001:10001" && container.stopTimeout == 90 &&
      !container.linuxParameters.initProcessEnabled && container.linuxParameters.capabilities == { add = [], drop = ["ALL"] } &&
      [for mount in container.mountPoints : mount.containerPath] == ["/tmp"]
    ])
    error_message = "read-only root, an ordinary user without capabilities, no init, 90 s to stop"
  }
  assert {
    condition = alltrue([
      for container in jsondecode(aws_ecs_task_definition.dispatcher.container_definitions) :
      !container.linuxParameters.initProcessEnabled && container.linuxParameters.capabilities == { add = [], drop = ["ALL"] } &&
      container.healthCheck.command == ["CMD", "/usr/bin/spillway-dispatcher", "healthy", "--port", "8080"]
    ])
    error_message = "no init that keeps the dispatcher's secrets, no capabilities; one that hangs is replaced"
  }
  assert {
    condition = alltrue([
      for container in jsondecode(aws_ecs_task_definition.runner.container_definitions) :
      [for secret in container.secrets : secret.name] == ["SPILLWAY_TICKET_KEY"]
    ])
    error_message = "a runner gets the ticket key and no secret of LiveKit's API"
  }
  assert {
    condition = alltrue([
      for container in jsondecode(aws_ecs_task_definition.dispatcher.container_definitions) :
      toset([for secret in container.secrets : secret.name]) == toset(["LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "SPILLWAY_TICKET_KEY"])
    ])
    error_message = "the dispatcher gets LiveKit's key and secret and the ticket key"
  }
}

run "web_pages_have_an_image_with_a_browser" {
  assert {
    condition     = aws_ecs_task_definition.page[0].family == "spillway-prod-runner-page" && aws_ecs_task_definition.page[0].cpu == "2048" && aws_ecs_task_definition.page[0].memory == "4096"
    error_message = "a definition of their own, of the size of a room in a page"
  }
  assert {
    condition = { for key, value in jsondecode(aws_ecs_task_definition.page[0].container_definitions)[0] : key => jsonencode(value) if key != "image" } == {
      for key, value in jsondecode(aws_ecs_task_definition.runner.container_definitions)[0] : key => jsonencode(value) if key != "image"
    }
    error_message = "but for the image it is the runner's"
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.page[0].container_definitions)[0].image == "${aws_ecr_repository.this[0].repository_url}:page"
    error_message = "its tag in the repository that is made here"
  }
  assert {
    condition     = alltrue([for target in output.dispatcher_config.targets : target.options.page_task_definition == "spillway-prod-runner-page"]) && output.page_task_definition == "spillway-prod-runner-page"
    error_message = "the launcher knows it"
  }
}

run "web_pages_are_refused_where_that_is_wanted" {
  variables {
    images = { page = "" }
  }

  assert {
    condition     = length(aws_ecs_task_definition.page) == 0 && !contains(keys(output.dispatcher_config.targets[0].options), "page_task_definition") && output.page_task_definition == null
    error_message = "no definition, and the launcher knows of none"
  }
}

run "web_pages_with_a_runner_of_another_registry" {
  variables {
    images = { dispatcher = "registry.example.org/dispatcher:1", runner = "registry.example.org/runner:1", page = "registry.example.org/page:1" }
  }

  assert {
    condition     = length(aws_ecr_repository.this) == 0 && jsondecode(aws_ecs_task_definition.page[0].container_definitions)[0].image == "registry.example.org/page:1"
    error_message = "a named image is used, and no registry is made for it"
  }
}

run "the_dispatcher_finds_its_whole_configuration" {
  variables {
    environment = "dev"
    runner      = { capacity = ["spot", "on-demand"] }
    storage     = { prefix = "recordings/" }
    limits      = { max_recordings = 50, max_duration_seconds = 7200 }
    settings    = { bid = 0.5 }
  }

  assert {
    condition     = output.dispatcher_env["LIVEKIT_API_SECRET"] == "secret:${aws_secretsmanager_secret.this["livekit-api-secret"].arn}" && can(regex("^redis:|\"redis\":", output.dispatcher_env["EGRESS_CONFIG_BODY"]))
    error_message = "plain values as they are, secrets by ARN"
  }
  assert {
    condition     = yamldecode(output.dispatcher_env["EGRESS_CONFIG_BODY"]).storage.s3 == { bucket = aws_s3_bucket.this[0].bucket, region = "eu-central-1" }
    error_message = "the bucket is the default of recordings"
  }
  assert {
    condition = (
      output.dispatcher_config.ws_url == "wss://livekit.example.org" && output.dispatcher_config.max_recordings == 50 && output.dispatcher_config.bid == 0.5 &&
      output.dispatcher_config.session_limits.file_output_max_duration == "7200s" && output.dispatcher_config.storage.prefix == "recordings/" &&
      output.dispatcher_config.redis.tls == { enabled = true }
    )
    error_message = "limits, prefix, Redis and further settings are passed on"
  }
  assert {
    condition     = [for target in output.dispatcher_config.targets : target.name] == ["aws/eu-central-1/spot", "aws/eu-central-1/on-demand"] && output.dispatcher_config.targets[0].options.task_definition == "spillway-dev-runner"
    error_message = "targets stand in the order of the capacity"
  }
  assert {
    condition     = endswith(local.policies.runner, "\n") && strcontains(local.policies.runner, "/recordings/*\"")
    error_message = "runners write below the prefix only"
  }
}

run "the_lambda_and_its_events" {
  variables {
    images = {
      dispatcher = "registry.example.org/dispatcher:1"
      runner     = "registry.example.org/runner:1"
      settle     = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/spillway-prod:settle"
    }
    architecture = "ARM64"
  }

  assert {
    condition     = length(aws_ecr_repository.this) == 0 && jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].image == "registry.example.org/runner:1"
    error_message = "named images are used, and no registry is made"
  }
  assert {
    condition     = length(aws_ecs_task_definition.page) == 0 && !contains(keys(output.dispatcher_config.targets[0].options), "page_task_definition")
    error_message = "beside a runner from elsewhere no image of pages is guessed"
  }
  assert {
    condition     = aws_lambda_function.settle[0].architectures == tolist(["arm64"]) && aws_ecs_task_definition.runner.runtime_platform[0].cpu_architecture == "ARM64"
    error_message = "one processor for all"
  }
  assert {
    condition = (
      jsondecode(aws_cloudwatch_event_rule.stopped[0].event_pattern).detail.lastStatus == ["STOPPED"] &&
      jsondecode(aws_cloudwatch_event_rule.stopped[0].event_pattern).detail.clusterArn == ["arn:aws:ecs:eu-central-1:111122223333:cluster/spillway-prod"] &&
      [for definition in jsondecode(aws_cloudwatch_event_rule.stopped[0].event_pattern).detail.taskDefinitionArn : definition.prefix] == [
        for family in ["runner", "runner-page"] : "arn:aws:ecs:eu-central-1:111122223333:task-definition/spillway-prod-${family}:"
      ] &&
      jsondecode(aws_cloudwatch_event_rule.reclaimed[0].event_pattern).detail.stopCode == ["SpotInterruption", "TerminationNotice"]
    )
    error_message = "stopped and reclaimed runners of this cluster, not its dispatchers"
  }
  assert {
    condition     = toset(keys(aws_cloudwatch_event_target.settle)) == toset(["reclaimed", "stopped"]) && alltrue([for target in aws_cloudwatch_event_target.settle : target.dead_letter_config[0].arn == aws_sqs_queue.settle[0].arn])
    error_message = "both reach the Lambda, or else the queue"
  }
  assert {
    condition     = toset(keys(aws_vpc_endpoint.settle)) == toset(["ecs", "secretsmanager"]) && alltrue([for endpoint in aws_vpc_endpoint.settle : toset(endpoint.subnet_ids) == toset(aws_subnet.private[*].id)])
    error_message = "the Lambda has a way to ECS and its secrets, in both zones"
  }
  assert {
    condition     = aws_lambda_function.settle[0].reserved_concurrent_executions == -1 && toset(aws_lambda_function.settle[0].vpc_config[0].subnet_ids) == toset(aws_subnet.private[*].id)
    error_message = "it keeps no executions for itself, and stands where the endpoints are"
  }
  assert {
    condition     = toset(keys(aws_iam_role_policy.settle)) == toset(["dispatcher", "settle"])
    error_message = "the Lambda may launch a salvage as dispatchers do"
  }
  assert {
    condition     = toset(keys(jsondecode(aws_lambda_function.settle[0].environment[0].variables["SPILLWAY_SECRETS"]))) == toset(["LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "SPILLWAY_TICKET_KEY"])
    error_message = "it is told where its secrets are, not what they are"
  }
}

run "an_existing_network_redis_and_bucket" {
  variables {
    network = { create = false, vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], runner_subnet_ids = ["subnet-3"], public_ip = false }
    redis   = { create = false, address = "redis.example.org:6380", password = true }
    storage = { create = false, bucket = "mine" }
    images  = { settle = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/mine:settle" }
    secrets = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t", redis-password = "p" }
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.public) + length(aws_vpc_endpoint.s3) + length(aws_vpc_endpoint.settle) + length(aws_elasticache_replication_group.this) + length(aws_s3_bucket.this) + length(aws_s3_bucket_policy.this) == 0
    error_message = "what exists is not made"
  }
  assert {
    condition     = toset(aws_ecs_service.dispatcher.network_configuration[0].subnets) == toset(["subnet-1", "subnet-2"]) && !aws_ecs_service.dispatcher.network_configuration[0].assign_public_ip
    error_message = "dispatchers stand in the named subnets"
  }
  assert {
    condition     = output.dispatcher_config.targets[0].options.subnets == tolist(["subnet-3"]) && output.dispatcher_config.targets[0].options.assign_public_ip == false
    error_message = "runners in theirs"
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.dispatcher_redis.from_port == 6380 && output.redis_endpoint == "redis.example.org:6380"
    error_message = "the way to Redis is open on its own port"
  }
  assert {
    condition     = contains(keys(output.runner_env), "SPILLWAY_REDIS_PASSWORD") && contains(keys(output.dispatcher_env), "SPILLWAY_REDIS_PASSWORD")
    error_message = "its password is a secret of both"
  }
}

run "an_existing_network_with_clients_and_a_lambda" {
  variables {
    network = { create = false, vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], settle_subnet_ids = ["subnet-4", "subnet-5"] }
    redis   = { clients = { livekit = "sg-livekit" }, username = "spillway", password = true, user_groups = ["spillway"] }
    images  = { settle = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/mine:settle" }
    secrets = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t", redis-password = "p" }
  }

  assert {
    condition     = toset(aws_lambda_function.settle[0].vpc_config[0].subnet_ids) == toset(["subnet-4", "subnet-5"]) && toset(aws_ecs_service.dispatcher.network_configuration[0].subnets) == toset(["subnet-1", "subnet-2"])
    error_message = "the Lambda stands where it has a way out"
  }
  assert {
    condition     = toset(keys(aws_vpc_security_group_ingress_rule.redis)) == toset(["client-livekit", "dispatcher", "runner", "settle"]) && aws_vpc_security_group_ingress_rule.redis["client-livekit"].referenced_security_group_id == "sg-livekit"
    error_message = "Redis lets in the groups that were named"
  }
  assert {
    condition     = toset(aws_elasticache_replication_group.this[0].user_group_ids) == toset(["spillway"]) && contains(keys(output.runner_env), "SPILLWAY_REDIS_PASSWORD") && output.dispatcher_config.redis.username == "spillway"
    error_message = "users of Redis' own, whose password is a secret"
  }
  assert {
    condition     = output.network.vpc_id == "vpc-1" && output.network.security_groups["redis"] == aws_security_group.redis[0].id
    error_message = "what a peering needs is told"
  }
}

run "values_of_secrets_pass_by" {
  variables {
    secrets          = { livekit-api-key = "canary-key", livekit-api-secret = "canary-secret" }
    secrets_version  = 3
    existing_secrets = { ticket-key = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:ticket" }
  }

  assert {
    condition     = toset(keys(aws_secretsmanager_secret_version.this)) == toset(["livekit-api-key", "livekit-api-secret"])
    error_message = "an existing secret is not written"
  }
  assert {
    condition     = alltrue([for version in aws_secretsmanager_secret_version.this : version.secret_string_wo_version == 3 && version.secret_string_wo == null && version.secret_string == null])
    error_message = "values are written and forgotten"
  }
  assert {
    condition     = output.runner_env["SPILLWAY_TICKET_KEY"] == "secret:arn:aws:secretsmanager:eu-central-1:111122223333:secret:ticket"
    error_message = "the existing one is used"
  }
}

run "a_ticket_key_is_not_rotated_with_livekits" {
  variables {
    secrets_version = 2
  }

  assert {
    condition     = { for name, version in aws_secretsmanager_secret_version.this : name => version.secret_string_wo_version } == { livekit-api-key = 2, livekit-api-secret = 2, ticket-key = 1 }
    error_message = "it has a version of its own"
  }
}

run "names_of_another_region" {
  variables {
    name        = "a-rather-longone"
    environment = "production"
    budget      = { monthly_usd = 200, emails = ["ops@example.org"] }
    images      = { settle = "111122223333.dkr.ecr.ap-southeast-1.amazonaws.com/mine:settle" }
  }

  override_data {
    target = data.aws_region.this
    values = { region = "ap-southeast-1" }
  }

  assert {
    condition = alltrue([
      for name in [aws_iam_role.dispatcher.name, aws_iam_role.runner_execution.name, aws_iam_role.settle[0].name, aws_cloudwatch_dashboard.this[0].dashboard_name, aws_budgets_budget.this[0].name] :
      startswith(name, "a-rather-longone-production-ap-southeast-1")
    ])
    error_message = "what an account has once for all regions carries the region"
  }
  assert {
    condition     = aws_ecs_cluster.runners.name == "a-rather-longone-production-runners" && aws_ecs_cluster.this.name != aws_ecs_cluster.runners.name
    error_message = "runners have a cluster of their own"
  }
}

run "money_and_alarms_as_asked" {
  variables {
    budget             = { monthly_usd = 200, emails = ["ops@example.org"] }
    alarms             = { topic_arn = "arn:aws:sns:eu-central-1:111122223333:ops" }
    activate_cost_tags = true
    dashboard          = false
    tags               = { team = "video" }
  }

  assert {
    condition     = aws_budgets_budget.this[0].limit_amount == "200" && { for filter in aws_budgets_budget.this[0].cost_filter : filter.name => tolist(filter.values) } == { TagKeyValue = tolist(["user:stack$spillway-prod"]), Region = tolist(["eu-central-1"]) } && length(aws_budgets_budget.this[0].notification) == 2
    error_message = "a budget of what carries our stack tag in this region, two notices"
  }
  assert {
    condition     = toset(keys(aws_ce_cost_allocation_tag.this)) == toset(output.cost_tags) && contains(output.cost_tags, "egress_id")
    error_message = "every cost tag is activated"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.dispatchers[0].threshold == 2 && aws_cloudwatch_metric_alarm.dispatchers[0].alarm_actions == toset(["arn:aws:sns:eu-central-1:111122223333:ops"])
    error_message = "a missing dispatcher is told to the topic"
  }
  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.figures)) == toset(["launches_failed", "given_up", "refused", "orphans"]) && aws_cloudwatch_log_metric_filter.figures["queue_length"].metric_transformation[0].value == "$.queue_length"
    error_message = "the dispatchers' own figures come from their log, and some of them have alarms"
  }
  assert {
    condition     = length(aws_cloudwatch_dashboard.this) == 0 && output.dashboard_url == null
    error_message = "no dashboard, no link to one"
  }
  assert {
    condition     = aws_s3_bucket.this[0].tags == tomap({ project = "spillway", stack = "spillway-prod", environment = "prod", team = "video" })
    error_message = "our tags and theirs"
  }
}

run "uploads_that_never_end_are_removed" {
  variables {
    storage = { expire_days = 30, versioning = true, kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/1" }
  }

  assert {
    condition     = one(aws_s3_bucket_lifecycle_configuration.this[0].rule[0].abort_incomplete_multipart_upload).days_after_initiation == 8 && one(aws_s3_bucket_lifecycle_configuration.this[0].rule[1].expiration).days == 30
    error_message = "parts after eight days, recordings as asked"
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.this[0].block_public_policy && aws_s3_bucket_public_access_block.this[0].restrict_public_buckets
    error_message = "the bucket is not public"
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this[0].rule).apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms" && length(aws_iam_role_policy.runner_key) == 1
    error_message = "with a key, runners may use it"
  }
}
