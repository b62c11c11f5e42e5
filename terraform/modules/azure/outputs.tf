output "dispatcher_env" {
  description = "Everything the dispatcher finds in its environment: plain values, and where secrets come from as `secret:` with an id."
  value       = merge(module.common.environment, { for variable, name in local.dispatcher_secrets : variable => "secret:${local.secret_ids[name]}" })
}

output "runner_env" {
  description = "The same for runners, beside what each launch adds: there all of their secrets come from."
  value       = local.runner_environment
}

output "dispatcher_config" {
  description = "The dispatcher's configuration, without secrets."
  value       = module.common.config
}

output "runner_resource_group" {
  description = "Where runners are started."
  value       = azurerm_resource_group.runners.name
}

output "runner_identity" {
  description = "Resource id of the identity that runners have."
  value       = azurerm_user_assigned_identity.runner.id
}

output "bucket" {
  description = "Storage account and container of the recordings."
  value       = "${local.storage_account}/${var.storage.container}"
}

output "redis_endpoint" {
  description = "host:port of Redis: give it to livekit-server too."
  value       = local.redis_address
}

output "network" {
  description = "Virtual network, subnets and the address of the way out, for a peering with livekit-server's network; `redis.dns_networks` makes Redis' name known there."
  value = {
    id             = one(azurerm_virtual_network.this[*].id)
    subnets        = { runner = local.runner_subnet, dispatcher = local.dispatcher_subnet, endpoint = local.endpoint_subnet }
    public_address = one(azurerm_public_ip.nat[*].ip_address)
  }
}

output "secrets" {
  description = "Secrets by short name: their ids in the vault."
  value       = local.secret_ids
}

output "repository" {
  description = "Where images go when none are named."
  value       = one(azurerm_container_registry.this[*].login_server)
}

output "log_workspace" {
  description = "Log Analytics workspace of the dispatchers. Runners' logs are read from each container group."
  value       = azurerm_log_analytics_workspace.this.id
}

output "log_urls" {
  description = "Logs in the portal."
  value       = { dispatcher = "https://portal.azure.com/#@${data.azurerm_client_config.this.tenant_id}/resource${azurerm_log_analytics_workspace.this.id}/logs" }
}

output "dashboard_url" {
  description = "The dashboard in the portal."
  value       = var.dashboard ? "https://portal.azure.com/#@${data.azurerm_client_config.this.tenant_id}/dashboard/arm${azurerm_portal_dashboard.this[0].id}" : null
}

output "cost_tags" {
  description = "Tags by which the vendor's own bill can be split."
  value       = ["stack", "tenant", "room", "type", "egress_id"]
}

output "policies" {
  description = "Actions of each part's own role."
  value       = { for part, role in local.roles : part => { actions = role.actions, data_actions = role.data_actions } }
}
