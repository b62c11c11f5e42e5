# One installation in one region: dispatchers as a container app that never sleeps, runners as container groups, Redis, a
# storage account. network -> redis, storage, secrets -> iam -> dispatcher -> watch, budget.

data "azurerm_client_config" "this" {}

locals {
  prefix = module.common.prefix
  # A subscription has one list of resource groups, roles and budgets for all regions.
  global = module.common.global
  tags   = module.common.tags

  # One image may be ours and the other one not: each has its own registry. Ours is the latest of its name, or one digest of it.
  # Beside a runner of another registry there is no image of pages that could be guessed.
  has_page     = var.images.page == null ? try(startswith(var.images.runner, "sha256:"), true) : var.images.page != ""
  own_images   = { for part in concat(["dispatcher", "runner"], local.has_page ? ["page"] : []) : part => try(startswith(var.images[part], "sha256:"), true) }
  own_registry = anytrue(values(local.own_images))
  registries   = { for part, own in local.own_images : part => own ? azurerm_container_registry.this[0].login_server : var.images.registry }
  images = {
    for part, own in local.own_images : part => (
      !own ? var.images[part] :
      var.images[part] == null ? "${local.registries[part]}/${part}:latest" : "${local.registries[part]}/${part}@${var.images[part]}"
    )
  }
  # A launch logs in to one registry, for the image of pages too.
  runners_pull    = local.own_images.runner || lookup(local.own_images, "page", false)
  runner_registry = local.runners_pull ? azurerm_container_registry.this[0].login_server : var.images.registry

  # A runner's secrets come with its launch, in values that the platform never shows again.
  runner_environment = {
    AZURE_CLIENT_ID     = azurerm_user_assigned_identity.runner.client_id
    SPILLWAY_LOG_FORMAT = "json"
  }

  targets = [{
    name     = "azure/${var.location}"
    launcher = "aci"
    capacity = "on-demand"
    region   = var.location
    arch     = "x86_64"
    nat      = true
    options = merge(
      {
        subscription   = var.subscription_id
        resource_group = azurerm_resource_group.runners.name
        location       = var.location
        image          = local.images["runner"]
        identities     = [azurerm_user_assigned_identity.runner.id]
        subnet         = local.runner_subnet
        environment    = local.runner_environment
        client_id      = azurerm_user_assigned_identity.dispatcher.client_id
      },
      # Without it the dispatcher refuses web pages here.
      local.has_page ? { page_image = local.images["page"] } : {},
      local.runners_pull || var.images.registry != null ? { registry = local.runner_registry } : {},
    )
  }]
}

module "common" {
  source = "../common"

  name        = var.name
  environment = var.environment
  place       = var.location
  unique      = var.subscription_id
  tags        = var.tags
  livekit_url = var.livekit_url
  limits      = var.limits
  log_level   = var.log_level
  settings    = var.settings
  targets     = local.targets

  redis = {
    address  = local.redis_address
    db       = var.redis.db
    username = var.redis.username
    tls      = var.redis.tls
  }
  storage = {
    prefix = var.storage.prefix == "" ? null : var.storage.prefix
    azure  = { account_name = local.storage_account, container_name = var.storage.container }
  }
}

resource "azurerm_resource_group" "this" {
  name     = local.global
  location = var.location
  tags     = local.tags
}

# Of their own, so that who may remove runners can remove nothing else.
resource "azurerm_resource_group" "runners" {
  name     = "${local.global}-runners"
  location = var.location
  tags     = local.tags
}

resource "azurerm_container_registry" "this" {
  count               = local.own_registry ? 1 : 0
  name                = module.common.account
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  sku                 = var.registry_sku
  admin_enabled       = false
  tags                = local.tags
}
