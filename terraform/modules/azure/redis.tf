# Not clustered: psrpc uses channels and scripts over several keys. Its key is in the state, because the provider reads it.

locals {
  redis_address    = var.redis.create ? "${azurerm_managed_redis.this[0].hostname}:${azurerm_managed_redis.this[0].default_database[0].port}" : var.redis.address
  private_endpoint = var.redis.create && (var.network.create || var.network.endpoint_subnet_id != null)
  # Networks in which Redis' name leads to its private endpoint: the one that it is in, and livekit-server's.
  redis_networks = !local.private_endpoint ? {} : merge(
    { own = var.network.create ? azurerm_virtual_network.this[0].id : split("/subnets/", var.network.endpoint_subnet_id)[0] },
    { for name, network in var.redis.dns_networks : "of-${name}" => network },
  )
}

resource "azurerm_managed_redis" "this" {
  count                     = var.redis.create ? 1 : 0
  name                      = module.common.vault
  resource_group_name       = azurerm_resource_group.this.name
  location                  = var.location
  sku_name                  = var.redis.sku
  high_availability_enabled = true
  public_network_access     = var.redis.public ? "Enabled" : "Disabled"
  tags                      = local.tags

  default_database {
    access_keys_authentication_enabled = true
    client_protocol                    = "Encrypted"
    clustering_policy                  = "NoCluster"
    # Tickets and the registry are not a cache.
    eviction_policy = "NoEviction"
  }
}

resource "azurerm_private_dns_zone" "redis" {
  count               = local.private_endpoint ? 1 : 0
  name                = "privatelink.redis.azure.net"
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "redis" {
  for_each              = local.redis_networks
  name                  = "${local.prefix}-${each.key}"
  resource_group_name   = azurerm_resource_group.this.name
  private_dns_zone_name = azurerm_private_dns_zone.redis[0].name
  virtual_network_id    = each.value
  tags                  = local.tags
}

resource "azurerm_private_endpoint" "redis" {
  count               = local.private_endpoint ? 1 : 0
  name                = "${local.prefix}-redis"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  subnet_id           = local.endpoint_subnet
  tags                = local.tags

  private_service_connection {
    name                           = "redis"
    private_connection_resource_id = azurerm_managed_redis.this[0].id
    is_manual_connection           = false
    subresource_names              = ["redisEnterprise"]
  }

  private_dns_zone_group {
    name                 = "redis"
    private_dns_zone_ids = [azurerm_private_dns_zone.redis[0].id]
  }
}
