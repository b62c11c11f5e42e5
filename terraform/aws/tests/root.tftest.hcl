# What `spillway` says reaches the module, which checks it; a key that the module does not have is refused.

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
  region   = "eu-central-1"
  secrets  = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
  spillway = { livekit_url = "wss://livekit.example.org" }
}

run "what_is_left_out_has_the_modules_default" {
  assert {
    condition     = output.dispatcher_config.queue == 200 && output.dispatcher_config.stack == "spillway-prod" && length(output.dispatcher_config.targets) == 1
    error_message = "an installation of defaults"
  }
}

run "what_is_set_is_handed_on" {
  variables {
    spillway = {
      livekit_url = "wss://livekit.example.org"
      environment = "dev"
      limits      = { queue = 7 }
      runner      = { capacity = ["spot", "on-demand"] }
      settings    = { port = 5000 }
    }
  }

  assert {
    condition     = output.dispatcher_config.queue == 7 && output.dispatcher_config.stack == "spillway-dev" && output.dispatcher_config.port == 5000
    error_message = "limits, environment and settings"
  }
  assert {
    condition     = [for target in output.dispatcher_config.targets : target.capacity] == ["spot", "on-demand"]
    error_message = "capacity in its order"
  }
}

run "a_key_the_module_does_not_have" {
  command = plan
  variables { spillway = { livekit_url = "wss://livekit.example.org", log_retention = 7 } }
  expect_failures = [var.spillway]
}

run "secrets_are_no_key" {
  command = plan
  variables { spillway = { livekit_url = "wss://livekit.example.org", secrets = {} } }
  expect_failures = [var.spillway]
}
