output "prefix" {
  description = "Begins every name: name-environment."
  value       = local.prefix
}

output "global" {
  description = "The same for names that an account has once for all regions: name-environment-place."
  value       = local.global
}

output "short" {
  description = "The same for names that must be short: at most 20 characters."
  value       = length(local.global) <= 20 ? local.global : "${trimsuffix(substr(local.prefix, 0, 14), "-")}-${substr(sha256(local.global), 0, 5)}"
}

output "bucket" {
  description = "A globally unique name of a bucket."
  value       = "${local.prefix}-recordings-${local.hash}"
}

output "account" {
  description = "The same for a storage account or a registry: at most 24 lower-case letters and digits."
  value       = "${substr(replace(local.prefix, "-", ""), 0, 16)}${local.hash}"
}

output "vault" {
  description = "The same for a key vault or a Redis: at most 24 letters, digits and hyphens."
  value       = "${trimsuffix(substr(local.prefix, 0, 15), "-")}-${local.hash}"
}

output "tags" {
  description = "Tags of every resource."
  value       = local.tags
}

output "labels" {
  description = "The same in the letters that Google allows."
  value       = local.labels
}

output "sizes" {
  description = "What each platform sells, as infra/cost knows it."
  value       = local.sizes
}

output "size_classes" {
  description = "Cloud Run's jobs: vCPU and memory of each."
  value       = local.size_classes
}

output "page_classes" {
  description = "The same for web pages: with at least the default memory."
  value       = local.page_classes
}

output "redis" {
  description = "The section `redis` of the configuration; runners need no other."
  value       = local.redis
}

output "config" {
  description = "The dispatcher's configuration, without secrets."
  value       = local.config
}

output "environment" {
  description = "What the dispatcher finds in its environment beside its secrets."
  value       = { EGRESS_CONFIG_BODY = yamlencode(local.config) }
}

# The names under which dispatcher and runners look for their secrets. Values are in the vendor's secret store only.
output "dispatcher_secrets" {
  description = "Environment variable of the dispatcher to short name of the secret."
  value = {
    LIVEKIT_API_KEY         = "livekit-api-key"
    LIVEKIT_API_SECRET      = "livekit-api-secret"
    SPILLWAY_TICKET_KEY     = "ticket-key"
    SPILLWAY_REDIS_PASSWORD = "redis-password"
  }
}

output "runner_secrets" {
  description = "Environment variable of runners to short name of the secret. A runner has no secret of LiveKit's API."
  value = {
    SPILLWAY_TICKET_KEY     = "ticket-key"
    SPILLWAY_REDIS_PASSWORD = "redis-password"
  }
}

output "secrets" {
  description = "Short names of all secrets."
  value       = ["livekit-api-key", "livekit-api-secret", "redis-password", "ticket-key"]
}

output "unfinished_upload_days" {
  description = "Days after which an upload that was begun and never finished belongs to no recording: the longest recording that is allowed and two days for its salvage; without a limit a week and a day."
  value       = var.limits.max_duration_seconds > 0 ? ceil(var.limits.max_duration_seconds / 86400) + 2 : 8
}
