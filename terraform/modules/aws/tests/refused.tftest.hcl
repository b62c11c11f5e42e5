# Wrong values are refused before anything is asked of the vendor.

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
  mock_resource "aws_ecs_cluster" {
    defaults = { arn = "arn:aws:ecs:eu-central-1:111122223333:cluster/spillway-prod" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b"] }
  }
}

variables {
  livekit_url = "wss://livekit.example.org"
  secrets     = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
}

run "a_page_is_no_livekit_server" {
  command = plan
  variables { livekit_url = "https://livekit.example.org" }
  expect_failures = [var.livekit_url]
}

run "a_name_that_no_vendor_takes" {
  command = plan
  variables { name = "Spill_way" }
  expect_failures = [var.name]
}

run "a_network_both_made_and_existing" {
  command = plan
  variables { network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"] } }
  expect_failures = [var.network]
}

run "a_network_without_room" {
  command = plan
  variables { network = { cidr = "10.0.0.0/24" } }
  expect_failures = [var.network]
}

run "a_redis_neither_made_nor_named" {
  command = plan
  variables { redis = { create = false } }
  expect_failures = [var.redis]
}

run "a_size_that_fargate_does_not_sell" {
  command = plan
  variables { runner = { cpu = 1024, memory = 1024 } }
  expect_failures = [var.runner]
}

run "a_dispatcher_that_fargate_does_not_sell" {
  command = plan
  variables { dispatcher = { cpu = 300 } }
  expect_failures = [var.dispatcher]
}

run "a_memory_between_two_that_fargate_sells" {
  command = plan
  variables { dispatcher = { cpu = 256, memory = 1536 } }
  expect_failures = [var.dispatcher]
}

run "a_stop_longer_than_fargate_waits" {
  command = plan
  variables { runner = { stop_seconds = 300 } }
  expect_failures = [var.runner]
}

run "a_budget_nobody_hears_of" {
  command = plan
  variables { budget = { monthly_usd = 100 } }
  expect_failures = [var.budget]
}

run "a_lambda_image_from_elsewhere" {
  command = plan
  variables { images = { settle = "registry.example.org/settle:1" } }
  expect_failures = [var.images]
}

run "a_secret_that_is_none_of_ours" {
  command = plan
  variables { existing_secrets = { password = "arn:aws:secretsmanager:x" } }
  expect_failures = [var.existing_secrets]
}

run "a_retention_cloudwatch_does_not_know" {
  command = plan
  variables { log_retention_days = 45 }
  expect_failures = [var.log_retention_days]
}

run "a_tag_the_vendor_keeps_for_itself" {
  command = plan
  variables { tags = { "aws:x" = "y" } }
  expect_failures = [var.tags]
}

run "a_store_without_a_name" {
  command = plan
  variables { storage = { create = false } }
  expect_failures = [var.storage]
}

run "a_version_below_the_first" {
  command = plan
  variables { secrets_version = 0 }
  expect_failures = [var.secrets_version]
}

run "a_name_with_two_hyphens_together" {
  command = plan
  variables { name = "a--b" }
  expect_failures = [var.name]
}

run "a_group_of_another_network" {
  command = plan
  variables { redis = { clients = { livekit = "sg-livekit" } } }
  expect_failures = [var.redis]
}

run "a_password_of_a_redis_without_users" {
  command = plan
  variables { redis = { password = true } }
  expect_failures = [var.redis]
}

run "a_lambda_without_a_way_out" {
  command = plan
  variables {
    network = { create = false, vpc_id = "vpc-1", subnet_ids = ["subnet-1"] }
    images  = { settle = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/mine:settle" }
  }
  expect_failures = [var.network]
}

run "a_recovery_that_secrets_manager_does_not_know" {
  command = plan
  variables { secret_recovery_days = 3 }
  expect_failures = [var.secret_recovery_days]
}

# Only in the apply that writes it: a plan needs no value.
run "a_secret_left_out" {
  variables {
    secrets = { livekit-api-key = "k" }
  }
  expect_failures = [aws_secretsmanager_secret_version.this]
}
