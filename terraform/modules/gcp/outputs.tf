output "dispatcher_env" {
  description = "Everything the dispatcher finds in its environment: plain values, and where secrets come from as `secret:` with an id."
  value       = merge(module.common.environment, { for name, id in local.dispatcher_secrets : name => "secret:${id}" })
}

output "runner_env" {
  description = "The same for runners, beside what each launch adds."
  value       = merge(local.runner_environment, { for name, id in local.runner_secrets : name => "secret:${id}" })
}

output "dispatcher_config" {
  description = "The dispatcher's configuration, without secrets."
  value       = module.common.config
}

output "runner_jobs" {
  description = "Jobs by vCPU count; those for web pages as page-COUNT."
  value       = { for key, job in google_cloud_run_v2_job.runner : key => job.name }
}

output "runner_identity" {
  description = "Service account that runners have."
  value       = google_service_account.runner.email
}

output "bucket" {
  description = "Bucket of the recordings."
  value       = local.bucket
}

output "redis_endpoint" {
  description = "host:port of Redis: give it to livekit-server too."
  value       = local.redis_address
}

output "redis_ca" {
  description = "Authority of Redis' certificate (PEM), which livekit-server needs as `redis.tls.ca_cert_file`."
  value       = local.redis_ca ? join("\n", google_redis_instance.this[0].server_ca_certs[*].cert) : null
}

output "network" {
  description = "Network and subnetwork of dispatchers and runners. A Redis made here is reachable from this network only, not from one that is peered with it."
  value       = { network = local.network, subnetwork = local.subnetwork }
}

output "secrets" {
  description = "Secrets by short name: their ids in the project."
  value       = local.secret_ids
}

output "repository" {
  description = "Where images go when none are named."
  value       = local.registry
}

output "log_filters" {
  description = "Filters of the log by part."
  value       = local.log_filters
}

output "log_urls" {
  description = "The same in the console."
  value       = { for part, filter in local.log_filters : part => "https://console.cloud.google.com/logs/query;query=${replace(urlencode(filter), "+", "%20")}?project=${var.project_id}" }
}

output "dashboard_url" {
  description = "Dashboards of the project in the console."
  value       = var.dashboard ? "https://console.cloud.google.com/monitoring/dashboards?project=${var.project_id}" : null
}

output "cost_tags" {
  description = "Labels by which the vendor's own bill can be split; Cloud Run knows none for a single run."
  value       = ["stack", "size_class"]
}

output "policies" {
  description = "Permissions of each part's own role."
  value       = { for part, role in local.roles : part => role.permissions }
}
