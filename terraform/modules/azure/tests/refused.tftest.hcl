# Wrong values are refused before anything is asked of the vendor.

# A test does not wait.
mock_provider "time" {}

mock_provider "azurerm" {
  mock_resource "azurerm_container_registry" {
    defaults = { login_server = "registry.example.org" }
  }
  mock_resource "azurerm_managed_redis" {
    defaults = { hostname = "r.example.org" }
  }
  mock_resource "azurerm_key_vault_secret" {
    defaults = { versionless_id = "https://vault.example.org/secrets/x" }
  }
}

variables {
  location        = "westeurope"
  subscription_id = "11111111-2222-3333-4444-555555555555"
  livekit_url     = "wss://livekit.example.org"
  secrets         = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
}

run "a_location_with_spaces" {
  command = plan
  variables {
    location = "West Europe"
  }
  expect_failures = [var.location]
}

run "a_subscription_by_its_name" {
  command = plan
  variables {
    subscription_id = "mine"
  }
  expect_failures = [var.subscription_id]
}

run "a_network_both_made_and_existing" {
  command = plan
  variables {
    network = { runner_subnet_id = "/subnets/runners" }
  }
  expect_failures = [var.network]
}

run "a_redis_of_ours_without_its_key" {
  command = plan
  variables {
    redis = { password = false }
  }
  expect_failures = [var.redis]
}

run "a_container_without_its_id" {
  command = plan
  variables {
    storage = { create = false, account = "mine" }
  }
  expect_failures = [var.storage]
}

run "a_dispatcher_between_two_sizes" {
  command = plan
  variables {
    dispatcher = { cpu = 0.3 }
  }
  expect_failures = [var.dispatcher]
}

run "a_budget_from_the_middle_of_a_month" {
  command = plan
  variables {
    budget = { monthly_usd = 100, start = "2027-01-15T00:00:00Z", emails = ["ops@example.org"] }
  }
  expect_failures = [var.budget]
}

run "a_version_below_the_first" {
  command = plan
  variables {
    secrets_version = 0
  }
  expect_failures = [var.secrets_version]
}

run "a_secret_by_another_vendors_name" {
  command = plan
  variables {
    existing_secrets = { ticket-key = "arn:aws:secretsmanager:x" }
  }
  expect_failures = [var.existing_secrets]
}

run "a_tag_that_azure_refuses" {
  command = plan
  variables {
    tags = { "a/b" = "c" }
  }
  expect_failures = [var.tags]
}

run "a_redis_on_the_internet_without_asking" {
  command = plan
  variables {
    network = { create = false, runner_subnet_id = "/net/virtualNetworks/mine/subnets/runners" }
  }
  expect_failures = [var.redis]
}

run "two_registries_that_a_runner_would_log_in_to" {
  command = plan
  variables {
    images = { page = "registry.example.net/page:1", registry = "registry.example.net" }
  }
  expect_failures = [var.images]
}

run "a_name_with_two_hyphens_together" {
  command = plan
  variables {
    name = "a--b"
  }
  expect_failures = [var.name]
}

# Only in the apply that writes it: a plan needs no value.
run "a_secret_left_out" {
  variables {
    secrets = { livekit-api-key = "k" }
  }
  expect_failures = [azurerm_key_vault_secret.this]
}
