output "dispatcher_env" {
  description = "Everything the dispatcher finds in its environment: plain values, and where secrets come from as `secret:` with an id."
  value       = module.spillway.dispatcher_env
}

output "runner_env" {
  description = "The same for runners, beside what each launch adds: there all of their secrets come from."
  value       = module.spillway.runner_env
}

output "dispatcher_config" {
  description = "The dispatcher's configuration, without secrets."
  value       = module.spillway.dispatcher_config
}

output "bucket" {
  description = "Storage account and container of the recordings."
  value       = module.spillway.bucket
}

output "redis_endpoint" {
  description = "host:port of Redis: give it to livekit-server too."
  value       = module.spillway.redis_endpoint
}

output "network" {
  description = "Virtual network, subnets and the address of the way out, for a peering with livekit-server's network; `redis.dns_networks` makes Redis' name known there."
  value       = module.spillway.network
}

output "secrets" {
  description = "Secrets by short name: their ids in the vault."
  value       = module.spillway.secrets
}

output "repository" {
  description = "Where images go when none are named."
  value       = module.spillway.repository
}

output "log_urls" {
  description = "Logs in the portal."
  value       = module.spillway.log_urls
}

output "dashboard_url" {
  description = "The dashboard in the portal."
  value       = module.spillway.dashboard_url
}

output "cost_tags" {
  description = "Tags by which the vendor's own bill can be split."
  value       = module.spillway.cost_tags
}

output "policies" {
  description = "Actions of each part's own role."
  value       = module.spillway.policies
}
