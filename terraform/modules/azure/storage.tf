# Parts that were never put together are removed by Azure itself after a week.

locals {
  storage_account = var.storage.create ? azurerm_storage_account.this[0].name : var.storage.account
  container_id    = var.storage.create ? azurerm_storage_container.this[0].id : var.storage.container_id
}

resource "azurerm_storage_account" "this" {
  count                           = var.storage.create ? 1 : 0
  name                            = coalesce(var.storage.account, module.common.account)
  resource_group_name             = azurerm_resource_group.this.name
  location                        = var.location
  account_kind                    = "StorageV2"
  account_tier                    = "Standard"
  account_replication_type        = var.storage.replication
  min_tls_version                 = "TLS1_2"
  https_traffic_only_enabled      = true
  allow_nested_items_to_be_public = false
  shared_access_key_enabled       = false
  default_to_oauth_authentication = true
  local_user_enabled              = false
  tags                            = local.tags

  blob_properties {
    delete_retention_policy {
      days = 7
    }
    container_delete_retention_policy {
      days = 7
    }
  }
}

resource "azurerm_storage_container" "this" {
  count                 = var.storage.create ? 1 : 0
  name                  = var.storage.container
  storage_account_id    = azurerm_storage_account.this[0].id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "this" {
  count              = var.storage.create && var.storage.expire_days > 0 ? 1 : 0
  storage_account_id = azurerm_storage_account.this[0].id

  rule {
    name    = "expire"
    enabled = true

    filters {
      blob_types   = ["blockBlob"]
      prefix_match = ["${var.storage.container}/${var.storage.prefix}"]
    }

    actions {
      base_blob {
        delete_after_days_since_modification_greater_than = var.storage.expire_days
      }
    }
  }
}
