# A container app rather than a container group: it reads its secrets from the vault by itself, so that none is in the state.

resource "azurerm_container_app_environment" "this" {
  name                       = local.prefix
  resource_group_name        = azurerm_resource_group.this.name
  location                   = var.location
  logs_destination           = "log-analytics"
  log_analytics_workspace_id = azurerm_log_analytics_workspace.this.id
  infrastructure_subnet_id   = local.dispatcher_subnet
  # Without a name Azure makes one up, and the provider would make the whole environment anew on the next apply.
  infrastructure_resource_group_name = "${local.global}-apps"
  tags                               = local.tags

  workload_profile {
    name                  = "Consumption"
    workload_profile_type = "Consumption"
  }
}

resource "azurerm_container_app" "dispatcher" {
  name                         = "${module.common.short}-dispatcher"
  resource_group_name          = azurerm_resource_group.this.name
  container_app_environment_id = azurerm_container_app_environment.this.id
  revision_mode                = "Single"
  workload_profile_name        = "Consumption"
  tags                         = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.dispatcher.id]
  }

  dynamic "registry" {
    for_each = local.own_images.dispatcher || var.images.registry != null ? [local.registries.dispatcher] : []

    content {
      server   = registry.value
      identity = azurerm_user_assigned_identity.dispatcher.id
    }
  }

  dynamic "secret" {
    for_each = toset(values(local.dispatcher_secrets))

    content {
      name                = secret.key
      identity            = azurerm_user_assigned_identity.dispatcher.id
      key_vault_secret_id = local.secret_ids[secret.key]
    }
  }

  template {
    min_replicas                     = var.dispatcher.count
    max_replicas                     = var.dispatcher.count
    termination_grace_period_seconds = 60

    container {
      name   = "dispatcher"
      image  = local.images["dispatcher"]
      cpu    = var.dispatcher.cpu
      memory = "${var.dispatcher.cpu * 2}Gi"

      dynamic "env" {
        for_each = module.common.environment

        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.dispatcher_secrets

        content {
          name        = env.key
          secret_name = env.value
        }
      }

      startup_probe {
        transport               = "HTTP"
        port                    = 8080
        path                    = "/healthz"
        interval_seconds        = 5
        failure_count_threshold = 10
      }

      liveness_probe {
        transport               = "HTTP"
        port                    = 8080
        path                    = "/healthz"
        interval_seconds        = 30
        failure_count_threshold = 4
      }
    }
  }

  # Secrets and image are asked for when the app is made, and its first replica asks for Redis.
  depends_on = [
    azurerm_private_dns_zone_virtual_network_link.redis, azurerm_private_endpoint.redis, azurerm_role_assignment.attach,
    azurerm_role_assignment.dispatcher, azurerm_role_assignment.runner, time_sleep.roles,
  ]
}
