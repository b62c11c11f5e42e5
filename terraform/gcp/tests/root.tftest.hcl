# What `spillway` says reaches the module, which checks it; a key that the module does not have is refused.

# A test does not wait.
mock_provider "time" {}

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_resource "google_redis_instance" {
    defaults = { host = "10.81.1.3", port = 6378, auth_string = "canary", server_ca_certs = [{ cert = "PEM" }] }
  }
  mock_resource "google_cloud_run_v2_service" {
    defaults = { uri = "https://dispatcher.example.org" }
  }
}

variables {
  project_id = "my-project"
  region     = "europe-west3"
  secrets    = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
  spillway   = { livekit_url = "wss://livekit.example.org" }
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
  variables { spillway = { livekit_url = "wss://livekit.example.org", log_retention = 7 } }
  expect_failures = [var.spillway]
}

run "secrets_are_no_key" {
  command = plan
  variables { spillway = { livekit_url = "wss://livekit.example.org", secrets = {} } }
  expect_failures = [var.spillway]
}
