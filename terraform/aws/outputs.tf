output "dispatcher_env" {
  description = "Everything the dispatcher finds in its environment: plain values, and where secrets come from as `secret:` with an ARN."
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
  description = "What livekit-server's network is peered with, and what its Redis lets in: VPC, range, subnets, route table of each, security groups."
  value       = module.spillway.network
}

output "key_policy" {
  description = "Statements that the policy of `kms_key_arn` must have, as JSON."
  value       = module.spillway.key_policy
}

output "secrets" {
  description = "Secrets by short name: their ARNs."
  value       = module.spillway.secrets
}

output "repository" {
  description = "Where images go when none are named; tags dispatcher, runner, page and settle."
  value       = module.spillway.repository
}

output "log_urls" {
  description = "The same in the console."
  value       = module.spillway.log_urls
}

output "dashboard_url" {
  description = "The dashboard in the console."
  value       = module.spillway.dashboard_url
}

output "cost_tags" {
  description = "Tags by which the vendor's own bill can be split."
  value       = module.spillway.cost_tags
}

output "policies" {
  description = "Rendered IAM policies by part, as JSON."
  value       = module.spillway.policies
}
