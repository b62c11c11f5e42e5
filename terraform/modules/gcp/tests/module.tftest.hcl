# What is made, with which switches. The provider is a mock: ids are made up, everything else is ours.

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

run "by_default_a_job_for_each_size" {
  assert {
    condition = { for key, job in google_cloud_run_v2_job.runner : key => job.template[0].template[0].containers[0].resources[0].limits if !startswith(key, "page-") } == {
      "1" = tomap({ cpu = "1", memory = "2048Mi" })
      "2" = tomap({ cpu = "2", memory = "4096Mi" })
      "4" = tomap({ cpu = "4", memory = "8192Mi" })
      "6" = tomap({ cpu = "6", memory = "12288Mi" })
      "8" = tomap({ cpu = "8", memory = "16384Mi" })
    }
    error_message = "1, 2, 4, 6 and 8 vCPU with their memories"
  }
  assert {
    condition     = alltrue([for job in google_cloud_run_v2_job.runner : job.template[0].template[0].max_retries == 0 && job.template[0].task_count == 1 && job.template[0].template[0].timeout == "86400s" && job.template[0].template[0].execution_environment == "EXECUTION_ENVIRONMENT_GEN2"])
    error_message = "one task, never tried again by the platform, for a day at most"
  }
  assert {
    condition     = alltrue([for job in google_cloud_run_v2_job.runner : job.template[0].template[0].vpc_access[0].egress == "ALL_TRAFFIC"])
    error_message = "media goes through the network"
  }
  assert {
    condition     = length(google_compute_network.this) == 1 && !google_compute_network.this[0].auto_create_subnetworks && google_compute_router_nat.this[0].min_ports_per_vm == 256
    error_message = "a network with one way out"
  }
  assert {
    condition     = output.dispatcher_config.start_deadline == "240s"
    error_message = "a start through a network takes minutes, and is waited for"
  }
  assert {
    condition     = google_redis_instance.this[0].tier == "STANDARD_HA" && google_redis_instance.this[0].transit_encryption_mode == "SERVER_AUTHENTICATION" && !google_redis_instance.this[0].auth_enabled
    error_message = "Redis has a standby and TLS; without a password none is in the state"
  }
  assert {
    condition     = google_storage_bucket.this[0].uniform_bucket_level_access && google_storage_bucket.this[0].public_access_prevention == "enforced" && one(google_storage_bucket.this[0].lifecycle_rule[0].condition).age == 8 && one(google_storage_bucket.this[0].lifecycle_rule[0].action).type == "AbortIncompleteMultipartUpload"
    error_message = "nobody outside, and uploads that never end are removed"
  }
  assert {
    condition     = length(google_billing_budget.this) == 0 && length(google_monitoring_dashboard.this) == 1 && length(google_project_service.this) == 12
    error_message = "no budget unless asked, a dashboard and the APIs unless not"
  }
}

run "two_dispatchers_that_never_sleep" {
  assert {
    condition     = google_cloud_run_v2_service.dispatcher.template[0].scaling[0].min_instance_count == 2 && google_cloud_run_v2_service.dispatcher.template[0].scaling[0].max_instance_count == 2 && google_cloud_run_v2_service.dispatcher.template[0].containers[0].resources[0].cpu_idle == false
    error_message = "exactly two, with their CPU always on"
  }
  assert {
    condition     = google_cloud_run_v2_service.dispatcher.ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    error_message = "nobody outside reaches them"
  }
  assert {
    condition     = toset([for env in google_cloud_run_v2_service.dispatcher.template[0].containers[0].env : env.name]) == toset(["EGRESS_CONFIG_BODY", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "SPILLWAY_TICKET_KEY"])
    error_message = "the configuration, LiveKit's key and secret and the ticket key"
  }
  assert {
    condition     = alltrue([for job in google_cloud_run_v2_job.runner : toset([for env in job.template[0].template[0].containers[0].env : env.name]) == toset(["SPILLWAY_LOG_FORMAT", "SPILLWAY_REDIS", "SPILLWAY_TICKET_KEY"])])
    error_message = "a runner gets the ticket key and no secret of LiveKit's API"
  }
  assert {
    condition     = output.dispatcher_config.redis == { address = "10.81.1.3:6378", db = 0, tls = { enabled = true, ca_cert_file = "/etc/spillway/redis-ca.pem" } } && output.dispatcher_config.storage.gcp.bucket == output.bucket
    error_message = "where Redis and the bucket are"
  }
  assert {
    condition = (
      output.dispatcher_config.targets[0].launcher == "cloud-run" && output.dispatcher_config.targets[0].options.project == "my-project" &&
      [for job in output.dispatcher_config.targets[0].options.jobs : job.name if !job.page] == [for cpu in ["1", "2", "4", "6", "8"] : output.runner_jobs[cpu]] &&
      output.dispatcher_config.targets[0].options.jobs[2].cpu_milli == 4000 && output.dispatcher_config.targets[0].options.jobs[2].memory_mib == 8192
    )
    error_message = "the launcher knows every job and its size"
  }
}

run "web_pages_have_an_image_with_a_browser" {
  variables {
    size_classes = { "1" = 1024, "4" = 16384 }
  }

  assert {
    condition = { for key, job in google_cloud_run_v2_job.runner : key => "${job.name} ${job.template[0].template[0].containers[0].image} ${job.template[0].template[0].containers[0].resources[0].limits["memory"]}" } == {
      "1"      = "spillway-prod-runner-1 europe-west3-docker.pkg.dev/my-project/spillway-prod/runner:latest 1024Mi"
      "4"      = "spillway-prod-runner-4 europe-west3-docker.pkg.dev/my-project/spillway-prod/runner:latest 16384Mi"
      "page-1" = "spillway-prod-runner-page-1 europe-west3-docker.pkg.dev/my-project/spillway-prod/page:latest 2048Mi"
      "page-4" = "spillway-prod-runner-page-4 europe-west3-docker.pkg.dev/my-project/spillway-prod/page:latest 16384Mi"
    }
    error_message = "a job for each size once more, with room for the browser"
  }
  assert {
    condition     = { for job in output.dispatcher_config.targets[0].options.jobs : job.name => "${job.cpu_milli} ${job.memory_mib}" if job.page } == { spillway-prod-runner-page-1 = "1000 2048", spillway-prod-runner-page-4 = "4000 16384" }
    error_message = "the launcher knows which of them are for pages"
  }
  assert {
    condition     = toset(keys(google_cloud_run_v2_job_iam_member.dispatcher)) == toset(["1", "4", "page-1", "page-4"])
    error_message = "dispatchers may run them"
  }
}

run "web_pages_are_refused_where_that_is_wanted" {
  variables {
    images = { page = "" }
  }

  assert {
    condition     = keys(google_cloud_run_v2_job.runner) == ["1", "2", "4", "6", "8"] && !anytrue([for job in output.dispatcher_config.targets[0].options.jobs : job.page])
    error_message = "no job for them, and the launcher knows of none"
  }
}

run "least_privilege" {
  assert {
    condition = sort(google_project_iam_custom_role.this["dispatcher"].permissions) == sort([
      "run.executions.cancel", "run.executions.get", "run.executions.list", "run.jobs.run", "run.jobs.runWithOverrides", "run.tasks.list",
    ])
    error_message = "a dispatcher runs, watches, cancels, and nothing else"
  }
  assert {
    condition = sort(google_project_iam_custom_role.this["runner"].permissions) == sort([
      "storage.multipartUploads.abort", "storage.multipartUploads.create", "storage.multipartUploads.listParts",
      "storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list",
    ])
    error_message = "a runner uploads, and sees whether a name exists"
  }
  assert {
    condition     = toset(keys(google_cloud_run_v2_job_iam_member.dispatcher)) == toset(keys(google_cloud_run_v2_job.runner)) && alltrue([for grant in google_cloud_run_v2_job_iam_member.dispatcher : grant.role == google_project_iam_custom_role.this["dispatcher"].id])
    error_message = "the role is given on our jobs, not on the project"
  }
  assert {
    condition     = google_storage_bucket_iam_member.runner.bucket == output.bucket && google_storage_bucket_iam_member.runner.role == google_project_iam_custom_role.this["runner"].id
    error_message = "and on one bucket"
  }
  assert {
    condition     = toset(keys(google_secret_manager_secret_iam_member.this)) == toset(["dispatcher/livekit-api-key", "dispatcher/livekit-api-secret", "dispatcher/ticket-key", "runner/ticket-key"])
    error_message = "each reads its own secrets"
  }
  assert {
    condition     = alltrue([for grant in [google_cloud_run_v2_service_iam_member.events[0]] : grant.role == "roles/run.invoker" && grant.member == "serviceAccount:${google_service_account.events[0].email}"])
    error_message = "only pushed events may call the dispatchers"
  }
}

run "the_end_of_a_run_is_pushed" {
  assert {
    condition     = strcontains(google_logging_project_sink.ended[0].filter, "resource.labels.job_name=~\"^spillway-prod-runner-\"") && strcontains(google_logging_project_sink.ended[0].filter, "protoPayload.methodName=\"/Jobs.RunJob\"")
    error_message = "ends of our jobs"
  }
  assert {
    condition     = google_pubsub_subscription.ended[0].push_config[0].push_endpoint == "https://dispatcher.example.org/events/cloudrun" && google_pubsub_subscription.ended[0].push_config[0].oidc_token[0].audience == "https://dispatcher.example.org"
    error_message = "to the dispatchers, signed"
  }
  assert {
    condition     = google_pubsub_topic_iam_member.sink[0].member == google_logging_project_sink.ended[0].writer_identity && google_pubsub_topic_iam_member.undelivered[0].member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    error_message = "the sink may publish, and what cannot be delivered is kept"
  }
}

run "an_existing_network_redis_and_bucket" {
  variables {
    network          = { create = false, network = "projects/p/global/networks/n", subnetwork = "projects/p/regions/r/subnetworks/s", egress = "PRIVATE_RANGES_ONLY" }
    redis            = { create = false, address = "10.0.0.3:6379", tls = false, password = true }
    storage          = { create = false, bucket = "mine" }
    images           = { dispatcher = "docker.io/example/dispatcher:1", runner = "docker.io/example/runner:1" }
    events           = false
    size_classes     = { "2" = 8192 }
    existing_secrets = { redis-password = "their-redis-password" }
  }

  assert {
    condition     = length(google_compute_network.this) + length(google_compute_router_nat.this) + length(google_redis_instance.this) + length(google_storage_bucket.this) + length(google_artifact_registry_repository.this) + length(google_pubsub_topic.ended) + length(google_logging_project_sink.ended) + length(google_secret_manager_secret.redis_ca) == 0
    error_message = "what exists or is not wanted is not made"
  }
  assert {
    condition     = keys(google_cloud_run_v2_job.runner) == ["2"] && google_cloud_run_v2_job.runner["2"].template[0].template[0].containers[0].image == "docker.io/example/runner:1" && google_cloud_run_v2_job.runner["2"].template[0].template[0].vpc_access[0].network_interfaces[0].subnetwork == "projects/p/regions/r/subnetworks/s"
    error_message = "the chosen job, with the named image, in the named network"
  }
  assert {
    condition     = output.runner_env["SPILLWAY_REDIS_PASSWORD"] == "secret:their-redis-password" && !contains(keys(google_secret_manager_secret_version.this), "redis-password")
    error_message = "their password is read where it is"
  }
}

run "a_redis_with_a_password_of_its_own" {
  variables {
    redis = { password = true }
  }

  assert {
    condition     = google_redis_instance.this[0].auth_enabled && length(google_secret_manager_secret_version.redis_password) == 1 && google_secret_manager_secret_version.redis_password[0].secret_data_wo == null
    error_message = "Google makes it, and it is written past the state"
  }
  assert {
    condition     = google_secret_manager_secret_version.redis_password[0].secret_data_wo_version == parseint(substr(sha256("canary"), 0, 7), 16)
    error_message = "it is written again when Redis has another one"
  }
}

run "an_image_by_its_digest_is_ours" {
  variables {
    images = { dispatcher = "sha256:aa", runner = "sha256:bb", page = "sha256:cc" }
  }

  assert {
    condition     = google_cloud_run_v2_job.runner["page-1"].template[0].template[0].containers[0].image == "europe-west3-docker.pkg.dev/my-project/spillway-prod/page@sha256:cc"
    error_message = "that of pages too"
  }
  assert {
    condition     = length(google_artifact_registry_repository.this) == 1 && google_cloud_run_v2_job.runner["1"].template[0].template[0].containers[0].image == "europe-west3-docker.pkg.dev/my-project/spillway-prod/runner@sha256:bb"
    error_message = "an upgrade by digests keeps the registry that they are in"
  }
}

run "below_a_prefix_only" {
  variables {
    storage = { prefix = "recordings/" }
  }

  assert {
    condition     = google_storage_bucket_iam_member.runner.condition[0].expression == "resource.type == \"storage.googleapis.com/Bucket\" || resource.name.startsWith(\"projects/_/buckets/${output.bucket}/objects/recordings/\")"
    error_message = "runners touch nothing beside it"
  }
}

run "what_is_looked_at" {
  variables {
    alarms = { emails = ["ops@example.org"] }
  }

  assert {
    condition     = length(google_monitoring_alert_policy.errors[0].conditions[0].condition_threshold) == 0 && strcontains(google_monitoring_alert_policy.errors[0].conditions[0].condition_matched_log[0].filter, "spillway-prod-dispatcher") && google_monitoring_alert_policy.errors[0].alert_strategy[0].notification_rate_limit[0].period == "300s"
    error_message = "errors are found in the log itself: a metric of the same apply is not known yet"
  }
  assert {
    condition     = google_logging_metric.figures["queue_length"].value_extractor == "EXTRACT(jsonPayload.queue_length)" && strcontains(google_monitoring_alert_policy.figures[0].conditions[0].condition_matched_log[0].filter, "jsonPayload.launches_failed>=5")
    error_message = "the dispatchers' own figures come from their log"
  }
  assert {
    condition     = alltrue(flatten([for tile in jsondecode(google_monitoring_dashboard.this[0].dashboard_json).mosaicLayout.tiles : [for at in ["xPos", "yPos"] : lookup(tile, at, 1) > 0]]))
    error_message = "zeros are left out, as the API leaves them out"
  }
  assert {
    condition     = alltrue([for url in values(output.log_urls) : !strcontains(url, "+") && strcontains(url, "%20")])
    error_message = "the console does not read + as a blank"
  }
}

run "names_of_another_region" {
  variables {
    name        = "a-rather-longone"
    environment = "production"
    region      = "northamerica-northeast1"
  }

  assert {
    condition = alltrue([
      for name in [google_compute_network.this[0].name, google_pubsub_topic.ended[0].name, google_logging_project_sink.ended[0].name, google_secret_manager_secret.this["ticket-key"].secret_id, google_logging_metric.errors["runner"].name] :
      startswith(name, "a-rather-longone-production-northamerica-northeast1")
    ])
    error_message = "what a project has once for all regions carries the region"
  }
}

run "values_of_secrets_pass_by" {
  assert {
    condition     = toset(keys(google_secret_manager_secret_version.this)) == toset(["livekit-api-key", "livekit-api-secret", "ticket-key"]) && alltrue([for version in google_secret_manager_secret_version.this : version.secret_data_wo == null && version.secret_data == null && version.secret_data_wo_version == 1])
    error_message = "values are written and forgotten"
  }
}

run "money_and_alarms_as_asked" {
  variables {
    budget    = { monthly = 200, billing_account = "000000-000000-000000" }
    alarms    = { emails = ["ops@example.org"] }
    dashboard = false
    labels    = { "Cost Center" = "Video & Audio" }
  }

  assert {
    condition     = google_billing_budget.this[0].amount[0].specified_amount[0].units == "200" && google_billing_budget.this[0].budget_filter[0].labels == tomap({ stack = "spillway-prod" }) && length(google_billing_budget.this[0].threshold_rules) == 2
    error_message = "a budget of what carries our stack label"
  }
  assert {
    condition     = length(google_billing_budget.this[0].all_updates_rule) == 1
    error_message = "told to the addresses"
  }
  assert {
    condition     = length(google_monitoring_notification_channel.email) == 1 && length(google_monitoring_alert_policy.dispatchers[0].notification_channels) == 1 && length(google_monitoring_dashboard.this) == 0
    error_message = "alarms reach the address; no dashboard"
  }
  assert {
    condition     = google_cloud_run_v2_job.runner["1"].labels == tomap({ project = "spillway", stack = "spillway-prod", environment = "prod", cost_center = "video___audio", size_class = "1" })
    error_message = "labels are made legal"
  }
}

run "a_budget_without_addresses" {
  variables {
    budget         = { monthly = 200, billing_account = "000000-000000-000000" }
    project_number = "123456789012"
  }

  assert {
    condition     = length(google_billing_budget.this[0].all_updates_rule) == 0 && toset(google_billing_budget.this[0].budget_filter[0].projects) == toset(["projects/123456789012"]) && length(data.google_project.this) == 0
    error_message = "Google tells the billing account's administrators, and is not asked for a number that is known"
  }
}
