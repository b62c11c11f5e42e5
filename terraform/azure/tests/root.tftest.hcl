# What `spillway` says reaches the module, which checks it; a key that the module does not have is refused.

# A test does not wait.
mock_provider "time" {}

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = { tenant_id = "00000000-0000-0000-0000-00000000000a", object_id = "00000000-0000-0000-0000-00000000000b" }
  }
  mock_resource "azurerm_managed_redis" {
    defaults = { hostname = "r.example.org" }
  }
  mock_resource "azurerm_container_registry" {
    defaults = { login_server = "registry.example.org" }
  }
  mock_resource "azurerm_key_vault_secret" {
    defaults = { versionless_id = "https://vault.example.org/secrets/x" }
  }
}

variables {
  subscription_id = "11111111-2222-3333-4444-555555555555"
  secrets         = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
  spillway        = { livekit_url = "wss://livekit.example.org", location = "westeurope" }
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
      location    = "westeurope"
      environment = "dev"
      limits      = { queue = 7 }
      settings    = { port = 5000 }
    }
  }

  assert {
    condition     = output.dispatcher_config.queue == 7 && output.dispatcher_config.stack == "spillway-dev" && output.dispatcher_config.port == 5000
    error_message = "limits, environment and settings"
  }
}

run "a_key_the_module_does_not_have" {
  command = plan
  variables { spillway = { livekit_url = "wss://livekit.example.org", location = "westeurope", log_retention = 7 } }
  expect_failures = [var.spillway]
}

run "secrets_are_no_key" {
  command = plan
  variables { spillway = { livekit_url = "wss://livekit.example.org", location = "westeurope", secrets = {} } }
  expect_failures = [var.spillway]
}
