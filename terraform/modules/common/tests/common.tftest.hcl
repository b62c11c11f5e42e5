# Values only: no provider is started.

variables {
  livekit_url = "ws://10.0.0.5:7880"
  redis       = { address = "redis:6379" }
  storage     = { s3 = { bucket = "b", region = "r" } }
}

run "names_fit_where_they_go" {
  variables {
    name        = "a-rather-longone"
    environment = "production"
    unique      = "111122223333"
  }

  assert {
    condition     = output.prefix == "a-rather-longone-production"
    error_message = "name, then environment"
  }
  assert {
    condition     = can(regex("^[a-z0-9]{3,24}$", output.account)) && can(regex("^[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]$", output.vault)) && can(regex("^[a-z0-9-]{3,63}$", output.bucket)) && can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", output.short))
    error_message = "storage account, vault, bucket and service accounts have legal names, whatever the length"
  }
}

run "names_of_another_account_are_others" {
  variables {
    name        = "a-rather-longone"
    environment = "production"
    unique      = "999900001111"
  }

  assert {
    condition     = output.account != run.names_fit_where_they_go.account && output.bucket != run.names_fit_where_they_go.bucket && output.vault != run.names_fit_where_they_go.vault
    error_message = "what the whole world shares differs by account"
  }
}

run "names_of_another_region_are_others" {
  variables {
    name        = "a-rather-longone"
    environment = "production"
    unique      = "111122223333"
    place       = "northamerica-northeast1"
  }

  assert {
    condition = (
      output.prefix == run.names_fit_where_they_go.prefix && output.global == "${output.prefix}-northamerica-northeast1" && output.short != run.names_fit_where_they_go.short &&
      output.account != run.names_fit_where_they_go.account && output.bucket != run.names_fit_where_they_go.bucket && output.vault != run.names_fit_where_they_go.vault
    )
    error_message = "what an account has once for all regions differs by region"
  }
}

run "labels_are_what_google_allows" {
  variables {
    tags = {
      "Cost Center" = "Video & Audio"
      "9lives"      = "Köln/3"
      "Team"        = "a-very-long-value-that-goes-on-and-on-until-nobody-would-read-it-any-more"
    }
  }

  assert {
    condition     = output.labels["cost_center"] == "video___audio" && output.labels["k9lives"] == "k_ln_3"
    error_message = "lower case, no spaces, keys begin with a letter"
  }
  assert {
    condition     = alltrue([for key, value in output.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "every label is legal"
  }
  assert {
    condition     = output.tags["Cost Center"] == "Video & Audio" && output.tags["stack"] == "spillway-prod"
    error_message = "tags stay as they are"
  }
}

run "five_jobs_by_default" {
  assert {
    condition     = output.size_classes == { for cpu, memory in { "1" = 2048, "2" = 4096, "4" = 8192, "6" = 12288, "8" = 16384 } : cpu => { cpu = tonumber(cpu), memory_mib = memory } }
    error_message = "1, 2, 4, 6 and 8 vCPU"
  }
}

run "jobs_as_chosen" {
  variables {
    size_classes = { "1" = 1024, "4" = 16384 }
  }

  assert {
    condition     = toset(keys(output.size_classes)) == toset(["1", "4"]) && output.size_classes["4"].memory_mib == 16384
    error_message = "what is left out has no job"
  }
  assert {
    condition     = { for cpu, size in output.page_classes : cpu => size.memory_mib } == { "1" = 2048, "4" = 16384 }
    error_message = "a page has room for its browser, and more where more was chosen"
  }
}

run "the_configuration_says_only_what_is_said" {
  variables {
    limits   = { queue_deadline_seconds = 30 }
    settings = { bid = 0.5, queue = 7 }
  }

  assert {
    condition     = yamldecode(output.environment["EGRESS_CONFIG_BODY"]) == output.config && keys(output.environment) == ["EGRESS_CONFIG_BODY"]
    error_message = "one document of YAML"
  }
  assert {
    condition     = !contains(keys(output.config), "max_recordings") && !contains(keys(output.config), "targets") && keys(output.config.storage) == ["s3"] && keys(output.config.redis.tls) == ["enabled"]
    error_message = "a key without a value is left out"
  }
  assert {
    condition     = output.config.queue_deadline == "30s" && output.config.queue == 7 && output.config.bid == 0.5 && output.config.disallow_local_storage
    error_message = "further settings win"
  }
  assert {
    condition     = length(setintersection(keys(output.config), ["api_key", "api_secret", "ticket_key"])) == 0 && !contains(keys(output.runner_secrets), "LIVEKIT_API_SECRET")
    error_message = "no secret in the text, and none of LiveKit's for runners"
  }
}

run "a_memory_that_cloud_run_does_not_sell" {
  command = plan
  variables {
    size_classes = { "1" = 8192 }
  }
  expect_failures = [var.size_classes]
}

run "a_cpu_that_cloud_run_does_not_sell" {
  command = plan
  variables {
    size_classes = { "3" = 4096 }
  }
  expect_failures = [var.size_classes]
}

run "a_secret_among_the_settings" {
  command = plan
  variables {
    settings = { api_secret = "canary" }
  }
  expect_failures = [var.settings]
}

run "a_name_with_two_hyphens_together" {
  command = plan
  variables {
    name = "a--b"
  }
  expect_failures = [var.name]
}

run "two_stores" {
  command = plan
  variables {
    storage = { s3 = { bucket = "b", region = "r" }, gcp = { bucket = "b" } }
  }
  expect_failures = [var.storage]
}

run "a_tag_that_is_ours" {
  command = plan
  variables {
    tags = { stack = "other" }
  }
  expect_failures = [var.tags]
}

run "an_upload_of_a_recording_that_goes_on_is_never_swept" {
  assert {
    condition     = output.unfinished_upload_days == 8
    error_message = "no limit: more than a week"
  }
}

run "nor_is_that_of_the_longest_recording" {
  variables {
    limits = { max_duration_seconds = 30 * 86400 + 1 }
  }

  assert {
    condition     = output.unfinished_upload_days == 33
    error_message = "begun days count whole, and a salvage has two"
  }
}
