# Wrong values are refused before anything is asked of the vendor.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b"] }
  }
}

variables {
  livekit_url = "wss://livekit.example.org"
  secrets     = {}
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

run "a_secret_left_out" {
  command = plan
  variables {
    secrets         = { livekit-api-key = "k" }
    secrets_version = 1
  }
  expect_failures = [var.secrets]
}
