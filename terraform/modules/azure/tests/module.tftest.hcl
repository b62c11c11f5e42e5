# What is made, with which switches. The provider is a mock: ids are made up, everything else is ours.

# A test does not wait.
mock_provider "time" {}

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = { tenant_id = "00000000-0000-0000-0000-00000000000a", object_id = "00000000-0000-0000-0000-00000000000b" }
  }
  mock_resource "azurerm_managed_redis" {
    defaults = { hostname = "r.example.org" }
  }
  mock_resource "azurerm_container_registry" {
    defaults = { login_server = "registry.example.org" }
  }
  mock_resource "azurerm_key_vault_secret" {
    defaults = { versionless_id = "https://vault.example.org/secrets/x" }
  }
}

variables {
  location        = "westeurope"
  subscription_id = "11111111-2222-3333-4444-555555555555"
  livekit_url     = "wss://livekit.example.org"
  secrets         = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
}

run "by_default_everything" {
  assert {
    condition     = azurerm_container_app.dispatcher.template[0].min_replicas == 2 && azurerm_container_app.dispatcher.template[0].max_replicas == 2 && length(azurerm_container_app.dispatcher.ingress) == 0
    error_message = "two dispatchers that nobody can call"
  }
  assert {
    condition     = azurerm_container_app.dispatcher.template[0].container[0].cpu == 0.25 && azurerm_container_app.dispatcher.template[0].container[0].memory == "0.5Gi" && azurerm_container_app.dispatcher.template[0].container[0].startup_probe[0].path == "/healthz"
    error_message = "small ones, asked for their health"
  }
  assert {
    condition     = azurerm_subnet.runners[0].address_prefixes == tolist(["10.82.0.0/18"]) && azurerm_subnet.dispatchers[0].address_prefixes == tolist(["10.82.128.0/23"]) && azurerm_subnet.endpoints[0].address_prefixes == tolist(["10.82.255.0/24"])
    error_message = "subnets have their places in the network"
  }
  assert {
    condition     = azurerm_subnet.runners[0].delegation[0].service_delegation[0].name == "Microsoft.ContainerInstance/containerGroups" && azurerm_subnet_nat_gateway_association.runners[0].subnet_id == azurerm_subnet.runners[0].id
    error_message = "runners' subnet is delegated and has a way out"
  }
  assert {
    condition     = toset(azurerm_subnet.runners[0].service_endpoints) == toset(["Microsoft.Storage"])
    error_message = "uploads do not go through the NAT gateway, which is paid by the byte"
  }
  assert {
    condition     = azurerm_container_app_environment.this.infrastructure_resource_group_name == "spillway-prod-westeurope-apps" && output.dispatcher_config.start_deadline == "240s"
    error_message = "the environment's group has a name, without which it is made anew; starts in a network are waited for"
  }
  assert {
    condition = alltrue([
      for rule in azurerm_network_security_group.runners[0].security_rule :
      rule.direction == "Inbound" && rule.access == "Deny" && rule.source_address_prefix == "*" && rule.destination_port_range == "*"
    ]) && length(azurerm_network_security_group.runners[0].security_rule) == 1
    error_message = "nothing comes in to runners"
  }
  assert {
    condition     = azurerm_managed_redis.this[0].public_network_access == "Disabled" && azurerm_managed_redis.this[0].default_database[0].clustering_policy == "NoCluster" && azurerm_managed_redis.this[0].default_database[0].eviction_policy == "NoEviction" && azurerm_managed_redis.this[0].high_availability_enabled
    error_message = "Redis is inside, not clustered, forgets nothing and has a standby"
  }
  assert {
    condition     = !azurerm_storage_account.this[0].shared_access_key_enabled && !azurerm_storage_account.this[0].allow_nested_items_to_be_public && azurerm_storage_account.this[0].min_tls_version == "TLS1_2" && azurerm_storage_container.this[0].container_access_type == "private"
    error_message = "storage knows identities only"
  }
  assert {
    condition     = length(azurerm_consumption_budget_subscription.this) == 0 && length(azurerm_portal_dashboard.this) == 1 && length(azurerm_monitor_action_group.this) == 0
    error_message = "no budget and nobody to tell unless asked, a dashboard unless not"
  }
}

run "the_dispatcher_finds_its_whole_configuration" {
  variables {
    storage = { prefix = "recordings/" }
  }

  assert {
    condition     = toset([for env in azurerm_container_app.dispatcher.template[0].container[0].env : env.name]) == toset(["EGRESS_CONFIG_BODY", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "SPILLWAY_TICKET_KEY", "SPILLWAY_REDIS_PASSWORD"])
    error_message = "the configuration, LiveKit's key and secret, the ticket key, Redis' key"
  }
  assert {
    condition     = alltrue([for secret in azurerm_container_app.dispatcher.secret : secret.value == null && startswith(secret.key_vault_secret_id, "https://") && secret.identity == azurerm_user_assigned_identity.dispatcher.id]) && length(azurerm_container_app.dispatcher.secret) == 4
    error_message = "secrets are read from the vault"
  }
  assert {
    condition = (
      output.dispatcher_config.targets[0].launcher == "aci" && output.dispatcher_config.targets[0].options.resource_group == "spillway-prod-westeurope-runners" &&
      output.dispatcher_config.targets[0].options.image == "registry.example.org/runner:latest" && output.dispatcher_config.targets[0].options.registry == "registry.example.org" &&
      output.dispatcher_config.targets[0].options.subnet == azurerm_subnet.runners[0].id && output.dispatcher_config.targets[0].options.identities == [azurerm_user_assigned_identity.runner.id] &&
      output.dispatcher_config.targets[0].options.client_id == azurerm_user_assigned_identity.dispatcher.client_id
    )
    error_message = "the launcher knows where, what and as whom"
  }
  assert {
    condition     = output.dispatcher_config.storage == { prefix = "recordings/", azure = { account_name = azurerm_storage_account.this[0].name, container_name = "recordings" } } && startswith(output.dispatcher_config.redis.address, "r.example.org:")
    error_message = "where the recordings and Redis are"
  }
}

run "web_pages_have_an_image_with_a_browser" {
  assert {
    condition     = output.dispatcher_config.targets[0].options.page_image == "registry.example.org/page:latest"
    error_message = "the latest of its name in the registry that is made here"
  }
}

run "web_pages_are_refused_where_that_is_wanted" {
  variables {
    images = { page = "" }
  }

  assert {
    condition     = !contains(keys(output.dispatcher_config.targets[0].options), "page_image") && output.dispatcher_config.targets[0].options.image == "registry.example.org/runner:latest"
    error_message = "the launcher knows of no image for them"
  }
}

run "web_pages_beside_a_runner_of_another_registry" {
  variables {
    images = { dispatcher = "docker.io/example/dispatcher:1", runner = "docker.io/example/runner:1", page = "sha256:cc" }
  }

  assert {
    condition     = output.dispatcher_config.targets[0].options.page_image == "registry.example.org/page@sha256:cc" && output.dispatcher_config.targets[0].options.registry == "registry.example.org"
    error_message = "a launch logs in where the image of pages is"
  }
  assert {
    condition     = keys(azurerm_role_assignment.pull) == ["runner"]
    error_message = "and runners may pull it"
  }
}

run "least_privilege" {
  assert {
    condition = toset(azurerm_role_definition.this["dispatcher"].permissions[0].actions) == toset([
      "Microsoft.ContainerInstance/containerGroups/read", "Microsoft.ContainerInstance/containerGroups/write",
      "Microsoft.ContainerInstance/containerGroups/delete", "Microsoft.ContainerInstance/containerGroups/stop/action",
      "Microsoft.ContainerInstance/containerGroups/containers/logs/read",
    ])
    error_message = "a dispatcher starts, watches, stops and removes container groups, and reads their logs"
  }
  assert {
    condition     = azurerm_role_assignment.dispatcher.scope == azurerm_resource_group.runners.id && azurerm_resource_group.runners.name != azurerm_resource_group.this.name
    error_message = "where only runners are"
  }
  assert {
    condition     = toset([for grant in azurerm_role_assignment.attach : grant.scope]) == toset([azurerm_subnet.runners[0].id, azurerm_user_assigned_identity.runner.id])
    error_message = "it may use one subnet and one identity"
  }
  assert {
    condition     = length(azurerm_role_definition.this["runner"].permissions[0].actions) == 0 && length(azurerm_role_definition.this["runner"].permissions[0].data_actions) == 4 && azurerm_role_assignment.runner.scope == azurerm_storage_container.this[0].id
    error_message = "a runner may touch blobs of one container, and manage nothing"
  }
  assert {
    condition     = alltrue([for grant in azurerm_role_assignment.secrets : grant.principal_id == azurerm_user_assigned_identity.dispatcher.principal_id && grant.role_definition_name == "Key Vault Secrets User"]) && length(azurerm_role_assignment.secrets) == 4
    error_message = "only dispatchers read the secrets"
  }
  assert {
    condition     = toset(keys(azurerm_role_assignment.pull)) == toset(["dispatcher", "runner"])
    error_message = "both pull their images"
  }
  assert {
    condition = alltrue([
      for grant in concat([azurerm_role_assignment.dispatcher, azurerm_role_assignment.runner], values(azurerm_role_assignment.attach), values(azurerm_role_assignment.secrets), values(azurerm_role_assignment.pull)) :
      grant.principal_type == "ServicePrincipal"
    ])
    error_message = "identities that were made just now are found"
  }
  assert {
    condition     = keys(azurerm_role_assignment.writer) == ["first"] && azurerm_role_assignment.writer["first"].principal_id == "00000000-0000-0000-0000-00000000000b"
    error_message = "who applies first writes the vault"
  }
}

run "an_existing_network_redis_and_storage" {
  variables {
    network          = { create = false, runner_subnet_id = "/subnets/runners" }
    redis            = { create = false, address = "redis.example.org:6380" }
    storage          = { create = false, account = "mine", container = "c", container_id = "/containers/c" }
    images           = { dispatcher = "registry.example.net/dispatcher:1", runner = "registry.example.net/runner:1" }
    existing_secrets = { redis-password = "https://vault.example.net/secrets/redis" }
  }

  assert {
    condition     = length(azurerm_virtual_network.this) + length(azurerm_nat_gateway.this) + length(azurerm_managed_redis.this) + length(azurerm_private_endpoint.redis) + length(azurerm_storage_account.this) + length(azurerm_container_registry.this) + length(azurerm_role_assignment.pull) == 0
    error_message = "what exists is not made"
  }
  assert {
    condition     = output.dispatcher_config.targets[0].options.subnet == "/subnets/runners" && !contains(keys(output.dispatcher_config.targets[0].options), "registry") && !contains(keys(output.dispatcher_config.targets[0].options), "page_image") && azurerm_role_assignment.runner.scope == "/containers/c"
    error_message = "runners stand in the named subnet, pull without logging in, write into the named container"
  }
  assert {
    condition     = output.secrets["redis-password"] == "https://vault.example.net/secrets/redis" && !contains(keys(azurerm_role_assignment.secrets), "redis-password")
    error_message = "their password is read where it is"
  }
}

run "a_redis_in_an_existing_network" {
  variables {
    network       = { create = false, runner_subnet_id = "/net/virtualNetworks/mine/subnets/runners", endpoint_subnet_id = "/net/virtualNetworks/mine/subnets/endpoints" }
    redis         = { dns_networks = { livekit = "/net/virtualNetworks/livekit" } }
    vault_writers = ["00000000-0000-0000-0000-00000000000c"]
  }

  assert {
    condition     = azurerm_managed_redis.this[0].public_network_access == "Disabled" && azurerm_private_endpoint.redis[0].subnet_id == "/net/virtualNetworks/mine/subnets/endpoints"
    error_message = "it is reached by a private endpoint, and not from the internet"
  }
  assert {
    condition     = { for name, link in azurerm_private_dns_zone_virtual_network_link.redis : name => link.virtual_network_id } == { own = "/net/virtualNetworks/mine", of-livekit = "/net/virtualNetworks/livekit" }
    error_message = "its name is known there, and where livekit-server is"
  }
  assert {
    condition     = keys(azurerm_role_assignment.writer) == ["00000000-0000-0000-0000-00000000000c"]
    error_message = "who writes the vault is who was named"
  }
}

run "an_image_by_its_digest_is_ours" {
  variables {
    images = { dispatcher = "sha256:aa", runner = "sha256:bb", page = "sha256:cc" }
  }

  assert {
    condition     = output.dispatcher_config.targets[0].options.page_image == "registry.example.org/page@sha256:cc"
    error_message = "that of pages too"
  }

  assert {
    condition     = length(azurerm_container_registry.this) == 1 && output.dispatcher_config.targets[0].options.image == "registry.example.org/runner@sha256:bb" && output.dispatcher_config.targets[0].options.registry == "registry.example.org"
    error_message = "an upgrade by digests keeps the registry that they are in"
  }
}

run "one_image_of_ours_and_one_of_another_registry" {
  variables {
    images = { dispatcher = "registry.example.net/dispatcher:1", registry = "registry.example.net" }
  }

  assert {
    condition     = output.dispatcher_config.targets[0].options.registry == "registry.example.org" && output.dispatcher_config.targets[0].options.image == "registry.example.org/runner:latest" && tolist(azurerm_container_app.dispatcher.registry)[0].server == "registry.example.net"
    error_message = "each is pulled from its own registry"
  }
  assert {
    condition     = keys(azurerm_role_assignment.pull) == ["runner"]
    error_message = "who pulls ours may"
  }
}

run "names_of_another_region" {
  variables {
    name        = "a-rather-longone"
    environment = "production"
    location    = "southcentralus"
    budget      = { monthly_usd = 200, start = "2027-01-01T00:00:00Z", emails = ["ops@example.org"] }
  }

  assert {
    condition = alltrue([
      for name in [azurerm_resource_group.this.name, azurerm_resource_group.runners.name, azurerm_consumption_budget_subscription.this[0].name, trimprefix(azurerm_role_definition.this["runner"].name, "Spillway ")] :
      startswith(name, "a-rather-longone-production-southcentralus")
    ])
    error_message = "what a subscription has once for all regions carries the region"
  }
}

run "values_of_secrets_pass_by" {
  assert {
    condition     = toset(keys(azurerm_key_vault_secret.this)) == toset(["livekit-api-key", "livekit-api-secret", "ticket-key"]) && alltrue([for secret in concat(values(azurerm_key_vault_secret.this), azurerm_key_vault_secret.redis_password) : secret.value_wo == null])
    error_message = "values are written and forgotten"
  }
  assert {
    condition     = alltrue([for secret in azurerm_key_vault_secret.this : secret.value_wo_version == 1]) && azurerm_key_vault_secret.redis_password[0].value_wo_version == parseint(substr(sha256(azurerm_managed_redis.this[0].default_database[0].primary_access_key), 0, 7), 16)
    error_message = "Redis' key is written again when it is another one"
  }
}

run "money_and_alarms_as_asked" {
  variables {
    budget    = { monthly_usd = 200, start = "2027-01-01T00:00:00Z", emails = ["ops@example.org"] }
    alarms    = { emails = ["ops@example.org"] }
    storage   = { expire_days = 30 }
    dashboard = false
  }

  assert {
    condition     = azurerm_consumption_budget_subscription.this[0].amount == 200 && one(azurerm_consumption_budget_subscription.this[0].filter[0].tag).values == tolist(["spillway-prod"]) && length(azurerm_consumption_budget_subscription.this[0].notification) == 2
    error_message = "a budget of what carries our stack tag, two notices"
  }
  assert {
    condition     = length(azurerm_monitor_metric_alert.dispatchers[0].action) == 1 && azurerm_monitor_metric_alert.dispatchers[0].criteria[0].threshold == 2 && length(azurerm_portal_dashboard.this) == 0
    error_message = "a missing dispatcher is told; no dashboard"
  }
  assert {
    condition     = strcontains(azurerm_monitor_scheduled_query_rules_alert_v2.figures[0].criteria[0].query, "todouble(line.launches_failed) >= 5") && length(azurerm_monitor_scheduled_query_rules_alert_v2.figures[0].action) == 1
    error_message = "the dispatchers' own figures come from their log"
  }
  assert {
    condition     = azurerm_storage_management_policy.this[0].rule[0].actions[0].base_blob[0].delete_after_days_since_modification_greater_than == 30
    error_message = "recordings are kept as long as asked"
  }
}
