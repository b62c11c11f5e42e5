output "dispatcher_env" {
  description = "Everything the dispatcher finds in its environment: plain values, and where secrets come from as `secret:` with an id."
  value       = module.spillway.dispatcher_env
}

output "runner_env" {
  description = "The same for runners, beside what each launch adds."
  value       = module.spillway.runner_env
}

output "dispatcher_config" {
  description = "The dispatcher's configuration, without secrets."
  value       = module.spillway.dispatcher_config
}

output "bucket" {
  description = "Bucket of the recordings."
  value       = module.spillway.bucket
}

output "redis_endpoint" {
  description = "host:port of Redis: give it to livekit-server too."
  value       = module.spillway.redis_endpoint
}

output "network" {
  description = "Network and subnetwork of dispatchers and runners. A Redis made here is reachable from this network only, not from one that is peered with it."
  value       = module.spillway.network
}

output "redis_ca" {
  description = "Authority of Redis' certificate (PEM), which livekit-server needs as `redis.tls.ca_cert_file`."
  value       = module.spillway.redis_ca
}

output "secrets" {
  description = "Secrets by short name: their ids in the project."
  value       = module.spillway.secrets
}

output "repository" {
  description = "Where images go when none are named."
  value       = module.spillway.repository
}

output "log_urls" {
  description = "The same in the console."
  value       = module.spillway.log_urls
}

output "dashboard_url" {
  description = "Dashboards of the project in the console."
  value       = module.spillway.dashboard_url
}

output "cost_tags" {
  description = "Labels by which the vendor's own bill can be split; Cloud Run knows none for a single run."
  value       = module.spillway.cost_tags
}

output "policies" {
  description = "Permissions of each part's own role."
  value       = module.spillway.policies
}
