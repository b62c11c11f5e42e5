# Wrong values are refused before anything is asked of the vendor.

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
  project_id  = "my-project"
  region      = "europe-west3"
  livekit_url = "wss://livekit.example.org"
  secrets     = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
}

run "a_zone_is_no_region" {
  command = plan
  variables {
    region = "europe-west3-a"
  }
  expect_failures = [var.region]
}

run "a_version_below_the_first" {
  command = plan
  variables {
    secrets_version = 0
  }
  expect_failures = [var.secrets_version]
}

run "a_network_without_room" {
  command = plan
  variables {
    network = { cidr = "10.0.0.0/27" }
  }
  expect_failures = [var.network]
}

run "a_cpu_that_cloud_run_does_not_sell" {
  command = plan
  variables {
    size_classes = { "3" = 4096 }
  }
  expect_failures = [var.size_classes]
}

run "a_dispatcher_below_what_cloud_run_sells" {
  command = plan
  variables {
    dispatcher = { memory_mib = 256 }
  }
  expect_failures = [var.dispatcher]
}

run "a_task_longer_than_cloud_run_lets_it_live" {
  command = plan
  variables {
    task_hours = 48
  }
  expect_failures = [var.task_hours]
}

run "a_redis_both_made_and_named" {
  command = plan
  variables {
    redis = { address = "10.0.0.3:6379" }
  }
  expect_failures = [var.redis]
}

run "a_budget_of_nobody" {
  command = plan
  variables {
    budget = { monthly = 100 }
  }
  expect_failures = [var.budget]
}

run "a_project_by_its_name" {
  command = plan
  variables {
    project_id = "My Project"
  }
  expect_failures = [var.project_id]
}

run "an_image_that_cloud_run_does_not_take" {
  command = plan
  variables {
    images = { runner = "ghcr.io/example/runner:1" }
  }
  expect_failures = [var.images]
}

run "an_image_of_pages_that_cloud_run_does_not_take" {
  command = plan
  variables {
    images = { page = "ghcr.io/example/page:1" }
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
  expect_failures = [google_secret_manager_secret_version.this]
}
